"""What compression costs: statistics against a plain forward pass, decompositions in seconds, memory over the model.

    python benchmarks/compression_cost.py [--model FOLDER --task glue/mrpc --data-dir DIR]

prints one table and writes compression_cost.json beside this file. Times of statistics are ratios: both sides run in
turn over the same batches, in one process, and the figure is the median over rounds. Without --model a MiniLM-L6-sized
BERT with random weights stands in. A BERT-base-sized one with random weights is always measured too. Each memory figure
is that of a fresh child process.
"""

import argparse
import json
import os
import resource
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import whet
from whet import Batches, Calibration, Resources
from whet.calibration import collect_moments, prepare_resources
from whet.models import Architecture, load_tokenizer
from whet.utils import current_machine

HERE = Path(__file__).parent
SHAPES = {
    "MiniLM-L6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
LIMITS = {
    "statistics without gradients, times forward": 2.0,
    "statistics with gradients, times forward": 5.0,
    "peak memory over the model, GiB": 1.0,
}
SECONDS = {"MiniLM-L6": 10.0, "BERT-base": 60.0}
"""Limit of one method's decompositions."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a fine-tuned MiniLM-L6")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name in SHAPES:
        make = loader(name, options.model, options.task, options.data_dir)
        found[name] = in_child(lambda make=make: costs(*make(), rounds=options.rounds))  # type: ignore[misc]
        for method in ("svd", "drone", "kfac"):
            key = f"peak memory over the model, GiB: {method}"
            found[name][key] = in_child(lambda make=make, method=method: peak(*make(), method=method))  # type: ignore[misc]
    written = {
        "machine": current_machine().to_dict(),
        "limits": LIMITS | {"decompositions, s": SECONDS},
        "costs": found,
    }
    (HERE / "compression_cost.json").write_text(json.dumps(written, indent=1) + "\n")
    show(found)


def loader(name: str, model: Path | None, task: str, data_dir: Path | None) -> Callable[[], tuple[nn.Module, Batches]]:
    """Return a function that loads a model and its calibration batches."""

    def real() -> tuple[nn.Module, Batches]:
        assert model is not None
        loaded = whet.load_model(model)
        chosen = whet.load_task(task, data_dir=data_dir)
        calibration = Calibration(examples=96)
        found = prepare_resources(loaded, load_tokenizer(model), chosen, calibration, seed=0, device="cpu").calibration
        assert found is not None
        return loaded, found

    def random() -> tuple[nn.Module, Batches]:
        torch.manual_seed(0)
        loaded = BertForSequenceClassification(BertConfig(**SHAPES[name])).eval()
        lengths = np.linspace(40, 70, 8).astype(int)
        ids = [torch.randint(1000, 30000, (4, length)) for length in lengths]
        batches = [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]
        return loaded, Batches(batches, np.zeros(32))

    return real if name == "MiniLM-L6" and model is not None else random


def costs(model: nn.Module, batches: Batches, *, rounds: int) -> dict[str, float]:
    """Return the times of the statistics over the forward pass's, and the seconds of each method's decompositions."""
    names = Architecture.of(model).linears

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(**batch)

    works = {
        "forward": forward,
        "statistics without gradients, times forward": lambda: collect_moments(model, batches, names),
        "statistics with gradients, times forward": lambda: collect_moments(model, batches, names, seed=0),
    }
    times: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(rounds + 1):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            times[key].append(time.perf_counter() - start)
    found = {"forward, s": float(np.median(times["forward"][1:]))}
    for key in list(works)[1:]:
        found[key] = float(np.median(np.divide(times[key][1:], times["forward"][1:])))
    for method in ("svd", "drone", "kfac"):
        found[f"decompositions, s: {method}"] = decompositions(model, batches, method)
    return found


def decompositions(model: nn.Module, batches: Batches, method: str) -> float:
    """Return the seconds that a method takes beyond its statistics: spectra, ranks, factors, replacement."""
    step = whet.method_named(method)(keep=0.4)  # type: ignore[call-arg]
    names = Architecture.of(model).linears
    resources = Resources(calibration=batches)
    start = time.perf_counter()
    if "calibration" in step.needs:
        collect_moments(model, batches, names, seed=0 if method == "kfac" else None)
    statistics = time.perf_counter() - start
    start = time.perf_counter()
    whet.Recipe((step,)).apply(model, resources)
    return time.perf_counter() - start - statistics


def peak(model: nn.Module, batches: Batches, *, method: str) -> float:
    """Return GiB that compressing takes at its peak, beyond the process with the loaded model."""
    with torch.inference_mode():
        model(**batches.batches[-1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = whet.method_named(method)(keep=0.4)  # type: ignore[call-arg]
    whet.Recipe((step,)).apply(model, Resources(calibration=batches))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` gives in a forked process, whose peak of memory is its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.wait()
    if not answer:
        raise RuntimeError("the child must give its figures, but it failed as shown above")
    return json.loads(answer)


def show(found: dict[str, dict[str, float]]) -> None:
    """Print the table, with the limits."""
    table = Table(
        "cost", *found, "limit", title=f"compression on {current_machine().cpu}, {torch.get_num_threads()} threads"
    )
    for key in next(iter(found.values())):
        plain = key.partition(":")[0]
        limit = (
            " / ".join(f"{SECONDS[name]:g}" for name in found)
            if plain == "decompositions, s"
            else LIMITS.get(plain, "")
        )
        table.add_row(key, *(f"{costs[key]:.2f}" for costs in found.values()), str(limit))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
