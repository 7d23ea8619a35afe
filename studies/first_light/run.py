"""First light: three factorizations at three sizes on five GLUE tasks, without retraining.

    python studies/first_light/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes a model for each task where `runs/first_light/TASK/dense` is missing, compresses it, measures everything side
by side, and writes results.json, results.md and a picture beside this file. Models stay under runs/, which git ignores.
"""

import argparse
import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import whet

HERE = Path(__file__).parent
FINE_TUNING: dict[str, list[dict[str, Any]]] = {
    "glue/mrpc": [{"epochs": 3, "learning_rate": 1e-4}, {"epochs": 5, "learning_rate": 1e-4}],
    "glue/cola": [{"epochs": 5, "learning_rate": 1e-4}],
    "glue/rte": [{"epochs": 5, "learning_rate": 1e-4}],
    "glue/stsb": [{"epochs": 3, "learning_rate": 1e-4}],
    "glue/sst2": [{"epochs": 0.5, "learning_rate": 1e-4}],
}
"""Settings tried; where there are several, the metric on the held-out training examples decides. STS-B and SST-2 are
trained for less time than would be best."""
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
    parser.add_argument("--tasks", nargs="+", default=list(FINE_TUNING), choices=list(FINE_TUNING))
    parser.add_argument("--runs", type=Path, default=Path("runs/first_light"))
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
    task = whet.task_named(name, data_dir=data_dir)
    dense = fine_tuned(base, task, folder, FINE_TUNING[name])
    folders = [dense]
    for label, entry in METHODS.items():
        for keep in KEEPS[label]:
            folders.append(folder / f"{label} {keep}")
            recipe = whet.Recipe.from_list([{**entry, "keep": keep}])
            calibration = whet.Calibration(examples=CALIBRATION)
            whet.compress(dense, recipe, folders[-1], task=task, calibration=calibration, overwrite=True)
    benchmark = whet.Benchmark(rounds=6, timed=128)
    return [json.loads(trial.to_json()) for trial in whet.measure(folders, task, benchmark=benchmark)]


def fine_tuned(base: str, task: whet.Task, folder: Path, candidates: list[dict[str, Any]]) -> Path:
    """Return the folder of the fine-tuned model, trained where it is missing; of several settings, the best held-out.

    Every setting's learning curve goes to `fine_tuning.json` beside this file.
    """
    dense, scores = folder / "dense", []
    if dense.is_dir():
        return dense
    for number, settings in enumerate(candidates):
        candidate = folder / f"candidate {number}"
        if not candidate.is_dir():
            whet.finetune(base, task, candidate, settings=whet.TrainingSettings(**settings))
        with (candidate / "curve.csv").open() as lines:
            curve = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]
        scores.append({**settings, "curve": curve})
    held_out = [row["curve"][-1]["validation_metric"] for row in scores]
    best = held_out.index(max(held_out))
    record = HERE / "fine_tuning.json"
    found = json.loads(record.read_text()) if record.is_file() else {}
    found[task.name] = {"chosen": best, "tried": scores}
    record.write_text(json.dumps(found, indent=1) + "\n")
    (folder / f"candidate {best}").rename(dense)
    return dense


def tables(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the results as Markdown, one table a task."""
    lines: list[str] = []
    for name, rows in found.items():
        quality = rows[0]["measurements"][0]["metric"]
        lines += [
            f"### {name}",
            "",
            f"| model | {quality} (95 % interval) | against dense (p) | KL (95 % interval) | sentences/s, times dense |"
            " parameters |",
            "|---|---|---|---|---|---|",
            *(row_of(row, quality) for row in rows),
            "",
        ]
    return "\n".join(lines)


def row_of(row: dict[str, Any], quality: str) -> str:
    """Return one model's line."""
    by_name = {one["metric"]: one for one in row["measurements"]}
    score, kl, speed = by_name[quality], by_name["kl"], by_name["throughput"]["versus"]
    versus = "" if score["versus"] is None else f"{score['versus']['value']:+.3f} ({score['versus']['p_value']:.2g})"
    faster = "1" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})"
    return (
        f"| {row['name']} | {interval(score, 3)} | {versus} | {interval(kl, 4)} | {faster} |"
        f" {by_name['parameters']['value']:,.0f} |"
    )


def interval(one: dict[str, Any], digits: int) -> str:
    """Return a value with its interval."""
    return f"{one['value']:.{digits}f} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"


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
