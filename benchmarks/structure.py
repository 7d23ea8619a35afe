"""What one budget over neurons, heads and more gives at a wanted speed, and a quarter of BERT-base's arithmetic.

    python benchmarks/structure.py --model runs/glue/glue_mrpc/dense --task glue/mrpc --data-dir DIR

gives a fine-tuned model the same speed in PyTorch by several sets of structures, and the same size with statistics of
one shot and taken anew, and reports KL on held-out training examples, the speed when it is measured again, and how long
it took. Without --model, models of BERT-base's shape with
random weights are timed: dense, and with a quarter of the linear layers' arithmetic. Adds what it finds to
structure.json beside this file.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import whet
from whet import Batches, Calibration, Resources
from whet.calibration import prepare_resources
from whet.evaluation import representative_batches, time_interleaved
from whet.models import load_tokenizer, predict
from whet.tasks import Batch
from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
SPEEDUP = 2.0
USUAL = ["neurons", "heads", "drop"]
RECIPES: dict[str, list[dict[str, Any]]] = {
    "neurons .25 and heads .67, apart": [{"method": "neurons", "keep": 0.25}, {"method": "heads", "keep": 0.67}],
    "kfac by_loss": [{"method": "kfac", "speedup": SPEEDUP}],
    **{
        f"structure: {', '.join(own)}": [{"method": "structure", "speedup": SPEEDUP, "structures": own}]
        for own in (USUAL[:2], USUAL, [*USUAL, "widths"], [*USUAL, "ranks"], [*USUAL, "widths", "ranks"])
    },
    "first_token, then structure": [{"method": "first_token"}, {"method": "structure", "speedup": SPEEDUP}],
    **{
        f"structure, {keep} kept, {how}": [{"method": "structure", "keep": keep, "calibration": how}]
        for keep in (0.5, 0.3)
        for how in ("one_shot", "sequential")
    },
}
ROUNDS = 8
SHAPES = ((8, 53), (8, 128), (1, 53))
"""Examples and tokens at which BERT-base is timed; 53 is the mean length of MRPC's pairs in BERT's pieces."""
SEED = 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a fine-tuned model")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    name = "BERT-base" if options.model is None else options.task
    results[name] = _bert_base() if options.model is None else _at_one_speed(options)
    results[name]["conditions"] = current_machine("cpu").to_dict()
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _at_one_speed(options: argparse.Namespace) -> dict[str, Any]:
    task = whet.load_task(options.task, data_dir=options.data_dir)
    model, tokenizer = whet.load_model(options.model).eval(), load_tokenizer(options.model)
    needs = frozenset({"calibration", "validation"})
    resources = prepare_resources(model, tokenizer, task, Calibration(), seed=SEED, device="cpu", needs=needs)
    assert resources.calibration is not None and resources.validation is not None
    wanted, batches = predict(model, resources.validation), representative_batches(resources.calibration)
    rows = {}
    for name, steps in RECIPES.items():
        begun = time.perf_counter()
        small = whet.Recipe.from_list(steps).apply(model, resources)
        seconds = time.perf_counter() - begun
        kl = float(wanted.divergences(predict(small, resources.validation)).mean())
        rows[name] = {"kl": kl, "speedup": _ratios(model, small, batches), "seconds": seconds}
        print(name, rows[name], flush=True)
    return {"asked": SPEEDUP, "held-out examples": len(wanted), "models": rows}


def _bert_base() -> dict[str, Any]:
    torch.manual_seed(SEED)
    model = BertForSequenceClassification(BertConfig()).eval()
    generator = torch.Generator().manual_seed(SEED)
    own = [_text(8, 53, generator) for _ in range(4)]
    calibration = Batches(own, np.zeros(32))
    begun = time.perf_counter()
    small = whet.Recipe.from_list([{"method": "structure", "keep": 0.25}]).apply(
        model, Resources(calibration=calibration)
    )
    seconds = time.perf_counter() - begun
    found = {f"{size}x{length}": _ratios(model, small, [_text(size, length, generator)]) for size, length in SHAPES}
    print(found, flush=True)
    kept = _encoder_weights(small) / _encoder_weights(model)
    return {"kept of the encoder's weights": kept, "seconds": seconds, "speedup": found}


def _encoder_weights(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.get_submodule("bert.encoder").parameters() if weight.dim() == 2)


def _text(examples: int, tokens: int, generator: torch.Generator) -> Batch:
    ids = torch.randint(1000, 30000, (examples, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _ratios(model: nn.Module, small: nn.Module, batches: list[Batch]) -> dict[str, float]:
    """How many times as fast the small one is: median, least and most over rounds."""
    rounds = np.sum([_rounds(model, small, batch) for batch in batches], axis=0)
    own = rounds[:, 0] / rounds[:, 1]
    return {"median": float(np.median(own)), "least": float(own.min()), "most": float(own.max())}


def _rounds(model: nn.Module, small: nn.Module, batch: Batch) -> np.ndarray[Any, Any]:
    return time_interleaved([lambda: model(**batch), lambda: small(**batch)], rounds=ROUNDS)


if __name__ == "__main__":
    main()
