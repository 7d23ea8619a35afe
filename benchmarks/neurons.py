"""What fewer neurons cost in answers, and what finding them costs in time.

    python benchmarks/neurons.py --model runs/glue/glue_mrpc/dense --task glue/mrpc --data-dir DIR --out runs/neurons

prunes a fine-tuned model at several budgets, evenly and by loss, without any training, saves every one, measures
all on the dev split in one run, and adds what it found to neurons.json beside this file. With `--low-rank 0.5` each is
saved once more with its attention factored. Without --model, only the time for removals is measured: for the shapes of
MiniLM-L6 and BERT-base, with random moments, which changes no cost.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import whet
from whet import Calibration, Resources
from whet.calibration import prepare_resources
from whet.evaluation import save_model
from whet.models import copy_sharing_parameters, describe, load_tokenizer
from whet.numerics import add_damping, removal_order
from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
SHAPES = {"MiniLM-L6": (6, 384, 1536), "BERT-base": (12, 768, 3072)}
"""Layers, hidden size and neurons."""
KEEP = (0.5, 0.25, 0.15)
SEED = 0
T = TypeVar("T")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a fine-tuned model")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the pruned models")
    parser.add_argument("--low-rank", type=float, help="keep of the attention's linear layers, as kfac factors them")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.model is None:
        results["removals"] = {name: _removals(*shape) for name, shape in SHAPES.items()}
        results["removals"]["conditions"] = current_machine("cpu").to_dict()
    else:
        results[options.task] = _pruned(options)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _removals(layers: int, hidden: int, neurons: int) -> dict[str, float]:
    """Processor time of one layer, since all cost the same; other work counts less in it than in wall time."""
    generator = torch.Generator().manual_seed(SEED)
    covariance, weighed = (_moment(neurons, rank, generator) for rank in (neurons, hidden))
    start = time.process_time()
    removal_order(add_damping(covariance, 1e-3), weighed)
    each = time.process_time() - start
    print(f"{neurons} neurons: {each:.1f} s a layer", flush=True)
    return {"layers": layers, "neurons": neurons, "seconds a layer": each, "seconds": layers * each}


def _moment(size: int, rank: int, generator: torch.Generator) -> Tensor:
    factor = torch.randn(size, rank, generator=generator, dtype=torch.float64)
    return factor @ factor.T / rank


def _pruned(options: argparse.Namespace) -> dict[str, Any]:
    task = whet.load_task(options.task, data_dir=options.data_dir)
    model, tokenizer = whet.load_model(options.model), load_tokenizer(options.model)
    calibration = Calibration()
    resources = prepare_resources(model, tokenizer, task, calibration, seed=SEED, device="cpu")
    neurons: Any = whet.method_named("neurons")
    method = neurons(keep=KEEP[0])
    places = method.locations(model, resources)
    moments, statistics = _timed(lambda: method.moments(model, places, resources))
    parts, removals = _timed(lambda: method.parts(model, places, moments))
    print(f"statistics {statistics:.1f} s, removals {removals:.1f} s", flush=True)
    folders, kept = [options.model], {}
    for keep in KEEP:
        for allocation in ("by_loss", "uniform"):
            step = neurons(keep=keep, allocation=allocation)
            small = step.spend(copy_sharing_parameters(model), parts, resources)
            name = f"neurons {allocation} {keep}"
            kept[name] = [describe(small)[place.output]["in_features"] for place in places]
            print(name, kept[name], flush=True)
            folders.append(_saved(small, (step,), name, options, tokenizer))
            if options.low_rank is not None and allocation == "by_loss":
                folders.append(_with_low_rank(small, step, name, options, tokenizer, resources))
    trials = whet.measure(folders, task, benchmark=whet.Benchmark(metrics=("fidelity", "size"), seed=SEED))
    rows = {trial.name: {one.metric: one.to_dict() for one in trial.measurements} for trial in trials}
    return {
        "calibration examples": calibration.examples,
        "seconds": {"statistics": statistics, "removals": removals},
        "neurons": kept,
        "models": rows,
        "conditions": trials[0].conditions,
    }


def _with_low_rank(
    small: nn.Module, step: whet.Method, name: str, options: argparse.Namespace, tokenizer: Any, resources: Resources
) -> Path:
    kfac: Any = whet.method_named("kfac")
    low_rank = kfac(keep=options.low_rank, include="*attention*")
    both = low_rank.apply(copy_sharing_parameters(small), resources)
    return _saved(both, (step, low_rank), f"{name}, attention {options.low_rank}", options, tokenizer)


def _saved(
    model: nn.Module, steps: tuple[whet.Method, ...], name: str, options: argparse.Namespace, tokenizer: Any
) -> Path:
    folder: Path = options.out / options.task.replace("/", "_") / name
    recipe = whet.Recipe(steps)
    save_model(
        model,
        tokenizer,
        folder,
        recipe=recipe.to_list(),
        origin=str(options.model),
        seed=SEED,
        overwrite=folder.exists(),
    )
    return folder


def _timed(run: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()
