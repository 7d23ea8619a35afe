"""Whether the code of a model card reaches the speed that stands beside it.

    python benchmarks/card.py runs/tuned runs/small --dev-file dev.csv --text text

measures a model against its baseline in every form that its folder holds, runs the code of its card as printed in the
folder that holds it, and times what that code loaded against the baseline, which the same call loads in PyTorch: text
in, label out, single texts and all texts in one call. The card's figure holds if its 95 % interval meets that of the
code. Writes card.json beside this file.
"""

import argparse
import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import whet
from whet import Benchmark, Comparison, Trial
from whet.evaluation import BenchmarkRow, paired_ratio, record, time_interleaved
from whet.utils import current_machine

HERE = Path(__file__).parent
FIGURES = {"single texts": "latency_median", "in batches": "throughput"}
"""The metric of the card's figure for each way in which texts are given."""
Answer = Callable[[Sequence[str]], Any]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path)
    parser.add_argument("model", type=Path, help="folder with exports")
    parser.add_argument("--dev-file", type=Path, required=True)
    parser.add_argument("--text", default="text", help="column of the sentences")
    parser.add_argument("--singles", type=int, default=50, help="texts that are timed one by one")
    parser.add_argument("--timed", type=int, default=256, help="texts that are timed in batches")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # what a predictor in a container of that size sees
    task = whet.load_task(train_file=options.dev_file, dev_file=options.dev_file, text=options.text)
    benchmark = Benchmark(
        rounds=options.rounds, singles=options.singles, timed=options.timed, metrics=("latency", "size")
    )
    trials = measured(options.baseline, options.model, task, benchmark)
    texts = list(task.splits.dev.texts)[: options.timed]
    rows = {}
    for form, code in blocks_of(options.model).items():
        told, own = trials[form], loaded(options.model, code)
        plain = (
            loaded(options.baseline, blocks_of(options.baseline)["pytorch"])
            if form == "pytorch"
            else in_pytorch(options.baseline)
        )
        rows[form] = timed(told, plain, own, texts, singles=options.singles, rounds=options.rounds)
    show(rows)
    result = {"machine": current_machine().to_dict(), "rounds": options.rounds, "texts": len(texts), "forms": rows}
    (HERE / "card.json").write_text(json.dumps(result, indent=1) + "\n")


def measured(baseline: Path, model: Path, task: whet.Task, benchmark: Benchmark) -> dict[str, Trial]:
    """Measure a model in each of its forms, as `whet measure` does, and return the newest trial of each."""
    forms = list(blocks_of(model))
    targets = [BenchmarkRow(model, *form.split()) for form in forms]
    trials = benchmark.compare([BenchmarkRow(baseline), *targets], task)[1:]
    for trial in trials:
        record(model, trial)
    return dict(zip(forms, trials, strict=True))


def blocks_of(folder: Path) -> dict[str, str]:
    """Return the code of a card by the form that it loads."""
    parts = re.findall(r"^### In (.*?)$\n(.*?)(?=^##)", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return {form: code for form, text in parts for code in re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)}


def loaded(folder: Path, code: str) -> Answer:
    """Run the code of a card where it says, and return what answers texts."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder.resolve().parent), contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    return names["predictor"].predict if "predictor" in names else partial(names["classify"], batch_size=32)


def in_pytorch(folder: Path) -> Answer:
    """Return what answers texts with a model in PyTorch, by the call that loads exports."""
    return whet.load(folder, runtime="pytorch").predict


def timed(
    told: Trial, plain: Answer, own: Answer, texts: Sequence[str], *, singles: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return the card's figure and that of the code, for single texts and in batches."""
    ordered = sorted(texts, key=len)
    some = ordered[:: max(1, len(ordered) // singles)]
    calls = {
        "single texts": lambda answer: [answer([text]) for text in some],
        "in batches": lambda answer: answer(ordered),
    }
    rows = {}
    for way, call in calls.items():
        seconds = time_interleaved([partial(call, plain), partial(call, own)], rounds=rounds)
        found, figure = paired_ratio(seconds[:, 0], seconds[:, 1], seed=0), told.get(FIGURES[way]).versus
        assert figure is not None
        rows[way] = {"card": asdict(figure), "code": asdict(found), "holds": meets(figure, found)}
    return rows


def meets(one: Comparison, other: Comparison) -> bool:
    """Return whether two intervals have a point in common."""
    return one.low <= other.high and other.low <= one.high


def show(rows: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the table."""
    table = Table(title="times as fast as the baseline")
    for name in ("form", "texts", "the card says", "its code gives", "intervals meet"):
        table.add_column(name)
    for form, ways in rows.items():
        for way, row in ways.items():
            cells = (
                f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in (row["card"], row["code"])
            )
            table.add_row(form, way, *cells, "yes" if row["holds"] else "no")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
