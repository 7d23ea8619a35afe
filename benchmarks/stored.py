"""What benchmarks of quality and size share: models made by recipes, measured on the dev split in one run."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch

import whet

__all__ = ["Measured", "measured"]


class Measured(NamedTuple):
    """What a benchmark asked for, and what came of it."""

    options: argparse.Namespace
    task: whet.Task
    folders: list[Path]
    """The dense model's and every recipe's."""
    trials: list[whet.Trial]
    """Of the same models."""


def measured(doc: str | None, recipes: dict[str, list[dict[str, Any]]], out: Path) -> Measured:
    """Read the command line, make what is missing, and measure.

    Args:
        doc: of the benchmark, for its help.
        recipes: by the names of the models' folders.
        out: folder of the models, if no other is named.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a fine-tuned model")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=out, help="folder of the models")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(options.task, data_dir=options.data_dir)
    folders = [options.model]
    for name, steps in recipes.items():
        folders.append(options.out / options.task.replace("/", "_") / name)
        if not folders[-1].is_dir():
            whet.compress(options.model, whet.Recipe.from_list(steps), folders[-1], task=task)
    return Measured(options, task, folders, whet.Benchmark(metrics=("fidelity", "size")).run(folders, task))
