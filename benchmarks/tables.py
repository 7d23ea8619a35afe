"""What storing word embeddings in 8 bits too does to models in int8: bytes, answers and time, both ways in one run.

    python benchmarks/tables.py --model runs/glue/glue_sst2/dense --task glue/sst2 --data-dir ../shared/data

converts the model for every runtime with the tables in fp32 and in 8 bits, and adds the task to tables.json beside this
file.
"""

import argparse
import contextlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch

import whet
from whet.calibration import equalize_low_rank_layers, prepare_resources
from whet.evaluation import bootstrap, paired_ratio, representative_batches, time_interleaved
from whet.models import dense_layers_in_blocks, input_names, load_tokenizer, predict_logits
from whet.numerics import categorical_kl
from whet.run import Session
from whet.runtimes import CALIBRATION, Conversion, exporter_named, to_onnx
from whet.tasks import Batch, encode, shortest_first
from whet.utils import INT8, current_machine

RESULTS = Path(__file__).with_suffix(".json")
RUNTIMES = ("onnxruntime", "openvino")


def main() -> None:
    """Convert, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="fine-tuned by whet")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(options.task, data_dir=options.data_dir)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[options.task] = {name: compared(name, options, task) for name in RUNTIMES}
    results[options.task]["conditions"] = current_machine("cpu").to_dict() | {"threads": options.threads}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results[options.task], indent=1))


def compared(name: str, options: argparse.Namespace, task: whet.Task) -> dict[str, Any]:
    """Return size and KL both ways, and how many times as fast 8 bits are, in one runtime."""
    model, tokenizer = whet.load_model(options.model).eval(), load_tokenizer(options.model)
    equalize_low_rank_layers(model, dense_layers_in_blocks(model))
    needs = frozenset({"calibration"})
    resources = prepare_resources(model, tokenizer, task, CALIBRATION, seed=0, device="cpu", needs=needs)
    assert resources.calibration is not None
    rows = shortest_first(task.splits.dev, tokenizer, max_length=128)
    dev = encode(rows, tokenizer, max_length=128, batch_size=8)
    wanted, runtime = predict_logits(model, dev), exporter_named(name)
    found, predicts = {}, {}
    with TemporaryDirectory() as root:
        whole = Path(root) / "whole.onnx"
        names = input_names(model, tokenizer.model_input_names)
        to_onnx(model, names, whole)
        for bits in (32, 8):
            folder = Path(root) / str(bits)
            folder.mkdir()
            kept = contextlib.nullcontext() if bits == 8 else mock.patch(f"whet.runtimes.{name}.quantize_embeddings")
            with kept:
                runtime.convert(
                    Conversion(whole, INT8, resources.calibration.batches, dense_layers_in_blocks(model)), folder
                )
            size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
            predict = predicts[bits] = runtime.open(folder, precision=INT8, threads=options.threads)
            interval = mean_of(categorical_kl(wanted, answers_of(predict, dev.batches)))
            found[f"{bits} bits"] = {"MiB": size, "KL": interval}
        batches = representative_batches(dev, batch_size=8, count=8)
        runs = [partial(answers_of, predict, batches) for predict in predicts.values()]
        seconds = time_interleaved(runs, rounds=options.rounds).T.tolist()
    ratio = paired_ratio(seconds[0], seconds[1], seed=0)
    return found | {"times as fast": {"value": ratio.value, "low": ratio.low, "high": ratio.high}}


def mean_of(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the mean with its 95 % interval."""
    return bootstrap(lambda drawn: float(np.mean(values[drawn])), len(values), seed=0)._asdict()


def answers_of(predict: Session, batches: Sequence[Batch]) -> np.ndarray[Any, Any]:
    """Return the logits of all examples."""
    return np.concatenate([predict(batch)["logits"] for batch in batches])


if __name__ == "__main__":
    main()
