"""What sorting by length, and a budget of tokens instead of a number of sentences, gain in batches.

    python benchmarks/batching.py --data-dir ../shared/data --models runs/glue --threads 1

answers the same dev sentences of MRPC and of SST-2 in batches made in several ways, all ways in turn in one process:
32 in the order of the file, padded to 128 tokens or to the longest of a batch; 8 or 32 sorted by length; and as many as
fit a budget of tokens, sorted. Writes batching.json beside this file.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase

import whet
from whet import Examples
from whet.evaluation import paired_ratio, time_interleaved
from whet.models import load_tokenizer
from whet.tasks import Batch, encode, fitting_batch_sizes, shortest_first
from whet.utils import current_machine

HERE = Path(__file__).parent
TASKS = ("mrpc", "sst2")
LENGTH = 128
SORTED = (8, 32)
BUDGETS = (256, 512, 1024, 2048, 4096)
BASELINES = ("32 in file order, padded to 128", "8 sorted", "32 sorted")
"""What every way is compared with."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with glue_mrpc/dense and glue_sst2/dense")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--examples", type=int, default=408, help="dev sentences of each task, at most")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    for task in TASKS:
        folder = options.models / f"glue_{task}" / "dense"
        dev = spread(whet.load_task(f"glue/{task}", data_dir=options.data_dir).splits.dev, options.examples)
        found[task] = measure(whet.load_model(folder), ways(dev, load_tokenizer(folder)), len(dev), options.rounds)
        show(task, found[task])
    result = {"machine": current_machine().to_dict(), "rounds": options.rounds, "tasks": found}
    (HERE / "batching.json").write_text(json.dumps(result, indent=1) + "\n")


def spread(examples: Examples, count: int) -> Examples:
    """Return so many of the examples, in their order."""
    places = np.linspace(0, len(examples) - 1, min(count, len(examples)))
    return examples.take(places.round().astype(int))


def ways(dev: Examples, tokenizer: PreTrainedTokenizerBase) -> dict[str, Sequence[Batch]]:
    """Return the batches of every way by its name."""
    encoded = partial(encode, tokenizer=tokenizer, max_length=LENGTH)
    in_order = encoded(dev, batch_size=32).batches
    by_length = shortest_first(dev, tokenizer, max_length=LENGTH)
    budgets = {
        budget: fitting_batch_sizes(by_length, tokenizer, max_length=LENGTH, batch_tokens=budget) for budget in BUDGETS
    }
    return {
        f"32 in file order, padded to {LENGTH}": [lengthened(batch) for batch in in_order],
        "32 in file order": in_order,
        **{f"{size} sorted": encoded(by_length, batch_size=size).batches for size in SORTED},
        **{
            f"{budget} tokens, sorted": encoded(by_length, batch_size=sizes).batches
            for budget, sizes in budgets.items()
        },
    }


def lengthened(batch: Batch) -> Batch:
    """Return the batch padded to the full length; zeros are padding here, and where they are not they are masked."""
    return {key: pad(value, (0, LENGTH - value.shape[1])) for key, value in batch.items()}


def measure(model: nn.Module, batches: dict[str, Sequence[Batch]], examples: int, rounds: int) -> dict[str, Any]:
    """Return how fast every way is, against each baseline, and how much of it is padding."""
    runs = [partial(answer_all, model, own) for own in batches.values()]
    seconds = dict(zip(batches, time_interleaved(runs, rounds=rounds).T.tolist(), strict=True))
    real = sum(int(batch["attention_mask"].sum()) for batch in batches["32 sorted"])
    return {
        "examples": examples,
        "mean tokens": real / examples,
        "ways": {
            name: {
                "batches": len(own),
                "largest batch": max(len(batch["input_ids"]) for batch in own),
                "padding": 1 - real / sum(batch["input_ids"].numel() for batch in own),
                "sentences a second": examples / float(torch.tensor(seconds[name]).median()),
                "times as fast as": {
                    base: asdict(paired_ratio(seconds[base], seconds[name], seed=0)) for base in BASELINES
                },
            }
            for name, own in batches.items()
        },
    }


def answer_all(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Run the model on every batch."""
    for batch in batches:
        model(**batch)


def show(task: str, found: dict[str, Any]) -> None:
    """Print one task's table."""
    table = Table(title=f"{task}, {found['examples']} sentences of {found['mean tokens']:.1f} tokens")
    for name in ("way", "batches", "largest", "padding", "1/s", *BASELINES):
        table.add_column(name)
    for way, row in found["ways"].items():
        ratios = (row["times as fast as"][base] for base in BASELINES)
        table.add_row(
            way,
            str(row["batches"]),
            str(row["largest batch"]),
            f"{row['padding']:.0%}",
            f"{row['sentences a second']:.0f}",
            *(f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" for ratio in ratios),
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
