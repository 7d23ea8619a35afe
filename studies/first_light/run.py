"""First light: three factorizations at three sizes on five GLUE tasks, without retraining.

    python studies/first_light/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes a model for each task where `runs/glue/TASK/dense` is missing, compresses it, measures everything side
by side, and writes results.json, results.md and a picture beside this file. Models stay under runs/, which git ignores.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import whet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)

TASKS = ("glue/mrpc", "glue/cola", "glue/rte", "glue/stsb", "glue/sst2")
METHODS: dict[str, dict[str, Any]] = {
    "svd uniform": {"method": "svd"},
    "drone uniform": {"method": "drone"},
    "kfac uniform": {"method": "kfac", "allocation": "uniform"},
    "kfac by_loss": {"method": "kfac"},
}
KEEPS = {
    "svd uniform": (0.6, 0.4),
    "drone uniform": (0.6, 0.4),
    "kfac uniform": (0.6, 0.4),
    "kfac by_loss": (0.6, 0.4, 0.2),
}
"""Only the best goes on to a fifth of the size."""
CALIBRATION = 366
"""Sentences; a tenth of MRPC's training data."""


def main() -> None:
    """Run every task that was asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--runs", type=Path, default=Path("runs/glue"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        found[name] = measure(name, options.base, options.data_dir, options.runs / name.replace("/", "_"))
        results.write_text(json.dumps(found, indent=1) + "\n")
        (HERE / "results.md").write_text(tables(found))
        picture(found).savefig(HERE / "results.png", dpi=130, metadata={"Software": "whet"})


def measure(name: str, base: str, data_dir: Path | None, folder: Path) -> list[dict[str, Any]]:
    """Return what was measured of every recipe on one task; the dense model first."""
    task = whet.load_task(name, data_dir=data_dir)
    dense = glue.fine_tuned(base, task, folder)
    folders = [dense]
    for label, entry in METHODS.items():
        for keep in KEEPS[label]:
            folders.append(folder / f"{label} {keep}")
            recipe = whet.Recipe.from_list([{**entry, "keep": keep}])
            calibration = whet.Calibration(examples=CALIBRATION)
            whet.compress(dense, recipe, folders[-1], task=task, calibration=calibration, overwrite=True)
    benchmark = whet.Benchmark(rounds=6, timed=128)
    return [trial.to_dict() for trial in whet.measure(folders, task, benchmark=benchmark)]


def tables(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the results as Markdown, one table a task."""
    return "\n".join(glue.table(name, rows) for name, rows in found.items())


def picture(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return quality over the share kept, one panel a task."""
    figure = Figure(figsize=(3.4 * len(found), 3.4), layout="constrained")
    panels: Iterable[Any] = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, rows) in zip(panels, found.items(), strict=True):
        scores = {row["name"]: row["measurements"][0] for row in rows}
        dense = scores.pop("dense")
        panel.axhspan(dense["low"], dense["high"], color="0.9", label="dense, 95 % interval")
        for label in METHODS:
            ones = [scores[f"{label} {keep}"] for keep in KEEPS[label]]
            arms = [[one["value"] - one["low"] for one in ones], [one["high"] - one["value"] for one in ones]]
            panel.errorbar(KEEPS[label], [one["value"] for one in ones], yerr=arms, marker="o", capsize=3, label=label)
        panel.set(title=name, xlabel="share of linear parameters kept", ylabel=dense["metric"])
        panel.invert_xaxis()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
