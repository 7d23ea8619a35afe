"""The frontier of accuracy and latency on six tasks: DRONE, low rank, one budget of measured time, and recovery.

    python studies/frontier/run.py --data-dir ../shared/data --base ../shared/models/all-MiniLM-L6-v2

has two stages. `equal_speed`: dense, and what each method makes of it at the same measured speed in PyTorch, nothing
trained. `whole`: what a user would take, in every runtime and number format, beside what these make of the dense model
by themselves, all in one run. Both fine-tune what is missing, and write results.json, results.md and a picture beside
this file, after every task; `--tasks` without any writes the tables and the picture anew, and `--make-only` leaves
measuring to another time.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import whet
from whet import InvalidArtifact
from whet.evaluation import BenchmarkRow
from whet.models import exported
from whet.utils import supports_products

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import glue  # noqa: E402  (beside this folder)

TASKS = ("glue/mrpc", "glue/rte", "glue/cola", "glue/stsb", "glue/sst2", "tweet_sentiment")
ELSEWHERE = {"tweet_sentiment": Path("runs/compression_course/original")}
"""Models that another study fine-tunes."""
SPEEDUP = 2.0
"""Asked of every model of the first stage, in PyTorch."""
EQUAL_SPEED: dict[str, list[dict[str, Any]]] = {
    "drone": [{"method": "drone", "speedup": SPEEDUP}],
    "kfac by_loss": [{"method": "kfac", "speedup": SPEEDUP}],
    "structure": [{"method": "structure", "speedup": SPEEDUP}],
    "structure, low rank too": [
        {"method": "structure", "speedup": SPEEDUP, "structures": ["neurons", "heads", "ranks", "drop"]}
    ],
}
FIRST = {"method": "first_token"}
IN_INT8 = {"runtime": "onnxruntime", "precision": "int8"}
RECOVERY = {"method": "recovery.distillation", "epochs": 3, "learning_rate": 1e-4, "precision": "bf16"}
WHOLE: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "drone 1.7": [FIRST, {"method": "drone", "speedup": 1.7}],
    "kfac 1.7": [FIRST, {"method": "kfac", "speedup": 1.7}],
    "structure 1.7": [FIRST, {"method": "structure", "speedup": 1.7, **IN_INT8}],
    "structure 1.7, low rank too": [
        FIRST,
        {
            "method": "structure",
            "speedup": 1.7,
            "structures": ["neurons", "heads", "ranks", "drop"],
            **IN_INT8,
        },
    ],
    "structure 2.2": [FIRST, {"method": "structure", "speedup": 2.2, **IN_INT8}],
    "structure 2, recovered": [FIRST, {"method": "structure", "speedup": 2.0, **IN_INT8}, RECOVERY],
    "structure 3, recovered": [FIRST, {"method": "structure", "speedup": 3.0, **IN_INT8}, RECOVERY],
}
"""The second stage. The speed of low rank alone counts in PyTorch, that of the others in ONNX Runtime int8."""
IN_PYTORCH_INT8 = {"dense, int8": [{"method": "dynamic_int8"}]}
"""By PyTorch's own kernels."""
PLACES = {
    ("onnxruntime", "int8"): "ONNX Runtime int8",
    ("openvino", "bf16"): "OpenVINO bf16",
    ("openvino", "int8"): "OpenVINO int8 (NNCF)",
}
"""Where models run besides PyTorch, and what tables call it."""
HERE_TOO = [(runtime, precision) for runtime, precision in PLACES if precision != "bf16" or supports_products("bf16")]
"""Those that this processor has instructions for."""
RUNTIMES, PRECISIONS = (list(dict.fromkeys(names)) for names in zip(*HERE_TOO, strict=True))


def main() -> None:
    """Run every task and stage that was asked for, and write what all runs so far gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--stages", nargs="+", default=["equal_speed", "whole"], choices=["equal_speed", "whole"])
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--glue-runs", type=Path, default=Path("runs/glue"), help="with the fine-tuned models")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--make-only", action="store_true", help="measure another time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = HERE / "results.json"
    found: dict[str, dict[str, Any]] = json.loads(results.read_text()) if results.is_file() else {}
    for name in options.tasks:
        task = whet.load_task(name, data_dir=options.data_dir)
        place = name.replace("/", "_")
        dense = ELSEWHERE.get(name) or glue.fine_tuned(options.base, task, options.glue_runs / place)
        for stage in options.stages:
            make, measure = (made_equal, equal_speed) if stage == "equal_speed" else (made_whole, in_runtimes)
            folders = make(task, dense, options.runs / place)
            if not options.make_only:
                found.setdefault(stage, {})[name] = measure(folders, task, options.rounds)
                write(results, found)
    if not options.tasks:
        write(results, found)


def made_equal(task: whet.Task, dense: Path, runs: Path) -> list[Path]:
    """Return the folders of the first stage's models, the dense one's first."""
    return [dense, *(made(task, dense, runs / label, steps) for label, steps in EQUAL_SPEED.items())]


def equal_speed(folders: list[Path], task: whet.Task, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the first stage, the dense model's first."""
    benchmark = whet.Benchmark(rounds=rounds, timed=128, singles=10, metrics=("fidelity", "latency", "size"))
    return [trial.to_dict() for trial in whet.measure(folders, task, benchmark=benchmark)]


def made_whole(task: whet.Task, dense: Path, runs: Path) -> list[Path]:
    """Return the folders of the second stage's models, exported, the dense one's first and PyTorch's int8 last."""
    folders = [made(task, dense, runs / label, steps) for label, steps in WHOLE.items()]
    for folder in folders:
        try:
            for place in HERE_TOO:
                exported(folder, *place)
        except InvalidArtifact:
            whet.export(folder, RUNTIMES, precisions=PRECISIONS, task=task)
    return [*folders, *(made(task, dense, runs / label, steps) for label, steps in IN_PYTORCH_INT8.items())]


def in_runtimes(folders: list[Path], task: whet.Task, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the second stage: all in PyTorch, dense first; then all but PyTorch's int8 elsewhere."""
    benchmark = whet.Benchmark(
        batch_size=8, rounds=rounds, timed=128, singles=10, metrics=("fidelity", "latency", "size")
    )
    rows = [BenchmarkRow(folder) for folder in folders] + [
        BenchmarkRow(folder, *place) for place in HERE_TOO for folder in folders[:-1]
    ]
    return [trial.to_dict() for trial in benchmark.compare(rows, task)]


def made(task: whet.Task, dense: Path, out: Path, steps: list[dict[str, Any]]) -> Path:
    """Return the folder of a recipe's model, compressed where it is missing."""
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        whet.compress(dense, whet.Recipe.from_list(steps), out, task=task)
    return out


def write(results: Path, found: dict[str, dict[str, Any]]) -> None:
    """Write what was measured, and the tables and the picture that follow from it."""
    # without indents, which would be a third of it
    results.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    tables = []
    if equal := found.get("equal_speed"):
        tables += ["## equal_speed", "", summed(equal), *(glue.table(name, rows) for name, rows in equal.items())]
    if whole := found.get("whole"):
        tables += ["## whole", "", *by_place(whole), *(sizes(name, rows) for name, rows in whole.items())]
        picture(whole).savefig(results.with_suffix(".png"), dpi=110, metadata={"Software": "whet"})
    results.with_suffix(".md").write_text("\n".join(tables))


def summed(tasks: dict[str, list[dict[str, Any]]]) -> str:
    """Return the KL of every method, summed over the tasks, and its mean speed, as a table."""
    lines = [f"### Summed over {', '.join(tasks)}", "", "| model | KL | times dense, least and most |", "|---|---|---|"]
    for place in range(1, 1 + len(EQUAL_SPEED)):
        rows = [{one["metric"]: one for one in own[place]["measurements"]} for own in tasks.values()]
        speeds = [row["throughput"]["versus"]["value"] for row in rows]
        total = sum(row["kl"]["value"] for row in rows)
        name = next(iter(tasks.values()))[place]["name"]
        lines.append(f"| {name} | {total:.4f} | {min(speeds):.2f} to {max(speeds):.2f} |")
    return "\n".join([*lines, ""])


def named(row: dict[str, Any]) -> tuple[str, str]:
    """Return a row's model, and where it ran."""
    model, _, place = row["name"].partition(" (")
    places = {" ".join(key): said for key, said in PLACES.items()}
    return model, places[place.rstrip(")")] if place else "PyTorch"


def known(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a row's measurements by name; the task's own metric, which is the first, as `quality` too."""
    return {"quality": row["measurements"][0], **{one["metric"]: one for one in row["measurements"]}}


def by_place(tasks: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a table for every place, of all tasks: times dense PyTorch, and the difference from it."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for task, rows in tasks.items():
        for row in rows:
            model, place = named(row)
            cells.setdefault(place, {}).setdefault(model, {})[task] = against_dense(row)
    tables = []
    for place, models in cells.items():
        tables += [f"### {place}", "", f"| model | {' | '.join(tasks)} |", "|---" * (1 + len(tasks)) + "|"]
        tables += [f"| {model} | {' | '.join(own.get(task, '') for task in tasks)} |" for model, own in models.items()]
        tables.append("")
    return tables


def against_dense(row: dict[str, Any]) -> str:
    """Return how many times as fast as dense PyTorch a row is, and how its quality differs; dense itself: its own."""
    found = known(row)
    speed, quality = found["throughput"]["versus"], found["quality"]["versus"]
    if speed is None:
        return f"{found['quality']['metric']} {glue.interval(found['quality'], 3)}"
    differs = f"{quality['value']:+.3f} ({quality['low']:+.3f} to {quality['high']:+.3f})"
    return f"{glue.interval(speed, 2).replace(' ', 'x ', 1)}, {differs}"


def sizes(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the rest of what was measured of one task's models, as a Markdown table."""
    lines = [
        f"### {name}",
        "",
        "| model | where | quality (95 % interval) | KL (95 % interval) | MiB |",
        "|---" * 5 + "|",
    ]
    for row in rows:
        found, (model, place) = known(row), named(row)
        quality, kl = glue.interval(found["quality"], 3), glue.interval(found["kl"], 4)
        lines.append(f"| {model} | {place} | {quality} | {kl} | {found['disk']['value']:.1f} |")
    return "\n".join([*lines, ""])


def picture(tasks: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return quality over speed, one panel a task: a colour for every model, a mark for every place."""
    models = list(dict.fromkeys(named(row)[0] for rows in tasks.values() for row in rows))
    marks = dict(zip(["PyTorch", *PLACES.values()], "osD^", strict=False))
    figure = Figure(figsize=(13, 9), layout="constrained")
    panels = figure.subplots(2, math.ceil(len(tasks) / 2), squeeze=False).flat
    for panel, (task, rows) in zip(panels, tasks.items(), strict=False):
        dense = rows[0]["measurements"][0]
        panel.axhspan(dense["low"], dense["high"], color="0.92")
        for row in rows[1:]:
            model, place = named(row)
            quality, speed = known(row)["quality"], known(row)["throughput"]["versus"]
            panel.errorbar(
                speed["value"],
                quality["value"],
                xerr=[[speed["value"] - speed["low"]], [speed["high"] - speed["value"]]],
                yerr=[[quality["value"] - quality["low"]], [quality["high"] - quality["value"]]],
                marker=marks[place],
                color=f"C{models.index(model)}",
                elinewidth=0.6,
            )
        panel.set(title=task, xlabel="sentences/s, times dense PyTorch", ylabel=dense["metric"])
    shown = [Line2D([], [], color=f"C{i}", linewidth=3, label=model) for i, model in enumerate(models)]
    shown += [Line2D([], [], color="0.4", linestyle="", marker=mark, label=name) for name, mark in marks.items()]
    figure.legend(
        handles=[*shown, Patch(color="0.92", label="dense PyTorch, 95 % interval")], loc="outside lower center", ncols=5
    )
    return figure


if __name__ == "__main__":
    main()
