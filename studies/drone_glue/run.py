"""DRONE on GLUE, re-run: plain SVD, DRONE and what goes beyond it, at equal measured speed and at equal size.

    python studies/drone_glue/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

fine-tunes a model for each task where `runs/glue/TASK/dense` is missing, compresses it by every recipe below, measures
all of them side by side, and writes results.json, results.md and a picture beside this file, after every task.
`--shares` measures quality over the share of the training data that calibration sees instead. `--tasks` without any
writes the tables and the picture anew from what was measured.
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

TASKS = ("glue/mrpc", "glue/stsb", "glue/cola", "glue/rte", "glue/wnli", "glue/sst2")
UNCOUNTED = "glue/wnli"
"""Its models say the same of every pair: no average counts it."""
SPEEDUP = 1.7
"""Asked of every model in the comparison at equal speed."""
RETRAINED = {"method": "recovery.distillation", "epochs": 1, "learning_rate": 1e-7, "share": 0.1, "hidden_states": 0}
"""DRONE's own retraining."""
RECOVERED = dict.fromkeys(TASKS, 1.0) | {"glue/sst2": 0.1}
"""Share of the training data for one epoch of recovery."""
AT_SPEED: dict[str, list[dict[str, Any]]] = {
    "svd": [{"method": "svd", "speedup": SPEEDUP}],
    "drone": [{"method": "drone", "speedup": SPEEDUP}],
    "drone retrained": [{"method": "drone", "speedup": SPEEDUP}, RETRAINED],
    "kfac uniform": [{"method": "kfac", "allocation": "uniform", "speedup": SPEEDUP}],
    "kfac by_loss": [{"method": "kfac", "speedup": SPEEDUP}],
    "kfac by_time": [{"method": "kfac", "allocation": "by_time", "speedup": SPEEDUP}],
}
BENCHMARK = whet.Benchmark(rounds=6, timed=128, singles=24, metrics=("fidelity", "latency", "size"))
QUALITY = whet.Benchmark(metrics=("fidelity",))
SHARE = 0.1
"""Of the training data, for calibration, as in the publication."""
SHARES = (0.01, 0.03, 0.1, 0.3)
SHARED = {"drone uniform 0.6": {"method": "drone", "keep": 0.6}, "kfac by_loss 0.4": {"method": "kfac", "keep": 0.4}}
"""What is calibrated on more and less data."""


def main() -> None:
    """Run every task that was asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--runs", type=Path, default=Path("runs/glue"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shares", action="store_true", help="the curve over calibration data instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / ("shares.json" if options.shares else "results.json")
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.load_task(name, data_dir=options.data_dir)
        folder = options.runs / name.replace("/", "_")
        dense = glue.fine_tuned(options.base, task, folder)
        found[name] = shares(task, dense) if options.shares else measure(task, dense)
        write(results, found, shared=options.shares)
    if not options.tasks:
        write(results, found, shared=options.shares)


def write(results: Path, found: dict[str, list[dict[str, Any]]], *, shared: bool) -> None:
    """Write what was measured, and the tables and the picture that follow from it."""
    results.write_text(json.dumps(found, indent=1) + "\n")
    drawn = shares_picture(found) if shared else glue.picture(found)
    drawn.savefig(results.with_suffix(".png"), dpi=130, metadata={"Software": "whet"})
    if not shared:
        tables = [averages(found), *(glue.table(name, rows) for name, rows in found.items())]
        results.with_suffix(".md").write_text("\n".join(tables))


def averages(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the change of every recipe's metric against dense, in points, averaged over tasks, as a table."""
    counted = [name for name in found if name != UNCOUNTED]
    lines = [
        f"### Mean change over {', '.join(counted)}",
        "",
        "| model | points of the tasks' metrics, mean | the worst task |",
        "|---|---|---|",
    ]
    for label in [row["name"] for row in found[counted[0]][1:]]:
        rows = [next(row for row in found[name] if row["name"] == label) for name in counted]
        points = [100 * row["measurements"][0]["versus"]["value"] for row in rows]
        least = min(points)
        lines.append(f"| {label} | {sum(points) / len(points):+.2f} | {least:+.2f} ({counted[points.index(least)]}) |")
    return "\n".join([*lines, ""])


def recipes(name: str) -> dict[str, list[dict[str, Any]]]:
    """Return every recipe of the comparison for one task."""
    at_size = {
        f"{method} {keep}": [{"method": method, "keep": keep}]
        for keep in (0.4, 0.25)
        for method in ("svd", "drone", "kfac")
    }
    at_size["attention by kfac 0.5"] = [{"method": "kfac", "keep": 0.5, "include": "*.attention.*"}]
    at_size["qkv by kfac 0.5"] = [{"method": "kfac", "keep": 0.5, "include": "*.self.*"}]
    at_size["qkv shared 0.5"] = [{"method": "shared_qkv", "keep": 0.5}]
    at_size["attention merged 0.5"] = [{"method": "attention", "keep": 0.5}]
    recovery = {"method": "recovery.distillation", "epochs": 1, "learning_rate": 1e-4, "share": RECOVERED[name]}
    return {**AT_SPEED, **at_size, "kfac 0.25 recovered": [{"method": "kfac", "keep": 0.25}, recovery]}


def measure(task: whet.Task, dense: Path) -> list[dict[str, Any]]:
    """Return what was measured of every recipe on one task; the dense model first."""
    folders = [dense]
    for label, steps in recipes(task.name).items():
        folders.append(dense.parent / "drone_glue" / label)
        compress(task, dense, folders[-1], steps, SHARE)
    return [trial.to_dict() for trial in whet.measure(folders, task, benchmark=BENCHMARK)]


def compress(task: whet.Task, dense: Path, out: Path, steps: list[dict[str, Any]], share: float) -> None:
    """Compress by a recipe with this share of the training data for calibration."""
    examples = max(whet.Calibration().batch_size, round(share * len(task.splits.train)))
    out.parent.mkdir(exist_ok=True)
    whet.compress(
        dense,
        whet.Recipe.from_list(steps),
        out,
        task=task,
        calibration=whet.Calibration(examples=examples),
        overwrite=True,
    )


def shares(task: whet.Task, dense: Path) -> list[dict[str, Any]]:
    """Return quality and fidelity over the share of the training data that calibration sees; the dense model first."""
    folders, labels = [dense], [{"method": "dense", "share": 0.0}]
    for label, entry in SHARED.items():
        for share in SHARES:
            folders.append(dense.parent / "drone_glue" / f"{label} share {share}")
            labels.append({"method": label, "share": share})
            compress(task, dense, folders[-1], [entry], share)
    trials = whet.measure(folders, task, benchmark=QUALITY)
    return [{**label, **trial.to_dict()} for label, trial in zip(labels, trials, strict=True)]


def shares_picture(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return KL over the share used for calibration, one panel a method and one line a task."""
    figure = Figure(figsize=(4.2 * len(SHARED), 3.6), layout="constrained")
    panels: Iterable[Any] = figure.subplots(1, len(SHARED), squeeze=False)[0]
    for panel, method in zip(panels, SHARED, strict=True):
        for name, rows in found.items():
            kls = [
                next(one for one in row["measurements"] if one["metric"] == "kl")
                for row in rows
                if row["method"] == method
            ]
            arms = [[one["value"] - one["low"] for one in kls], [one["high"] - one["value"] for one in kls]]
            panel.errorbar(SHARES, [one["value"] for one in kls], yerr=arms, marker="o", capsize=3, label=name)
        panel.set(title=method, xlabel="share of the training data", ylabel="KL to dense", xscale="log", yscale="log")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
