"""What the studies of whole deployments share: models made by recipes, measured in every runtime in one run."""

import argparse
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import glue
import whet
from whet import InvalidArtifact
from whet.evaluation import BenchmarkRow
from whet.models import exported
from whet.utils import ComputePrecision, supports_products

FIRST = {"method": "first_token"}
IN_INT8 = {"runtime": "onnxruntime", "precision": "int8"}
FASTEST: ComputePrecision = "bf16" if supports_products("bf16") else "fp32"
"""The precision in which this processor trains fastest."""
RECOVERY = {"method": "recovery.distillation", "epochs": 3, "learning_rate": 1e-4, "precision": FASTEST}
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
"""What a user would take. The speed of low rank alone counts in PyTorch, that of the others in ONNX Runtime int8."""
PLACES = {
    ("onnxruntime", "int8"): "ONNX Runtime int8",
    ("openvino", "bf16"): "OpenVINO bf16",
    ("openvino", "int8"): "OpenVINO int8 (NNCF)",
}
"""Where models run besides PyTorch, and what tables call it."""
STATIC = "static vectors"
"""Where a model of one vector a token runs: in numpy, with no layer."""
MARKS = dict(zip(["PyTorch", *PLACES.values(), STATIC], "osD^*", strict=True))
"""How pictures mark where a model ran."""
HERE_TOO = [(runtime, precision) for runtime, precision in PLACES if precision != "bf16" or supports_products("bf16")]
"""Those that this processor has instructions for."""
RUNTIMES, PRECISIONS = (list(dict.fromkeys(names)) for names in zip(*HERE_TOO, strict=True))
Rows = list[dict[str, Any]]
"""What was measured of one task, a row for each model and place, dense PyTorch first."""


def parser(description: str | None, runs: str) -> argparse.ArgumentParser:
    """Return the options that every such study has.

    Args:
        description: what the study is.
        runs: where it keeps its models, if nothing else is asked for.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    made.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    made.add_argument("--runs", type=Path, default=Path(runs))
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--rounds", type=int, default=8)
    made.add_argument("--make-only", action="store_true", help="measure another time")
    return made


def one_task(
    description: str | None,
    results: Path,
    runs: str,
    name: str,
    task_of: Callable[[argparse.Namespace], whet.Task],
    recipes: Mapping[str, list[dict[str, Any]]],
    *,
    settings: whet.TrainingSettings,
    calibration: whet.Calibration,
) -> None:
    """Run a study of one task: make what is missing, measure all models in one run, and write what was measured.

    Args:
        description: what the study is.
        results: file of the measurements.
        runs: where it keeps its models, if nothing else is asked for.
        name: of the task in tables.
        task_of: reads the task, by the options.
        recipes: by the names of the models, the dense one's first.
        settings: of the fine-tuning.
        calibration: of recipes and exports; its inputs are as long as those that are timed.
    """
    known = parser(description, runs)
    known.add_argument("--write-only", action="store_true", help="write tables and picture anew")
    known.add_argument("--runtimes", nargs="*", choices=RUNTIMES, help="besides PyTorch; all if not given")
    known.add_argument(
        "--only", nargs="*", choices=[*recipes], help="recipes besides the dense model; all if not given"
    )
    options = known.parse_args()
    torch.set_num_threads(options.threads)
    if options.write_only:
        write(results, json.loads(results.read_text()))
        return
    task, dense = task_of(options), options.runs / "fine-tuned"
    if not dense.is_dir():
        whet.finetune(options.base, task, dense, settings=settings)
    chosen = [label for label, steps in recipes.items() if not steps or options.only is None or label in options.only]
    folders = [made(task, dense, options.runs / label, recipes[label], calibration=calibration) for label in chosen]
    export_all(folders, task, calibration=calibration)
    if not options.make_only:
        places = [place for place in HERE_TOO if options.runtimes is None or place[0] in options.runtimes]
        rows = in_runtimes(folders, task, options.rounds, max_length=calibration.max_length, places=places)
        write(results, {name: rows})


def made(
    task: whet.Task,
    dense: Path,
    out: Path,
    steps: list[dict[str, Any]],
    *,
    calibration: whet.Calibration | None = None,
) -> Path:
    """Return the folder of a recipe's model, compressed where it is missing."""
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        whet.compress(dense, whet.Recipe.from_list(steps), out, task=task, calibration=calibration)
    return out


def export_all(folders: Sequence[Path], task: whet.Task, *, calibration: whet.Calibration | None = None) -> None:
    """Export to every place the models that are not."""
    for folder in folders:
        try:
            for place in HERE_TOO:
                exported(folder, *place)
        except InvalidArtifact:
            whet.export(folder, RUNTIMES, precisions=PRECISIONS, task=task, calibration=calibration)


def in_runtimes(
    folders: Sequence[Path],
    task: whet.Task,
    rounds: int,
    *,
    in_pytorch_alone: Sequence[Path] = (),
    cascades: Sequence[Path] = (),
    max_length: int = 128,
    places: Sequence[tuple[str, str]] | None = None,
) -> Rows:
    """Return the rows of all models in PyTorch, dense first, and then of those that are exported in every other place.

    Args:
        folders: of exported models, the dense one first.
        task: what they are for.
        rounds: how often each timed batch runs.
        in_pytorch_alone: folders of models that are not exported.
        cascades: folders of those, which NNCF cannot quantize.
        max_length: of inputs, in tokens.
        places: where models run besides PyTorch; everywhere if None.
    """
    benchmark = whet.Benchmark(
        batch_size=8,
        max_length=max_length,
        rounds=rounds,
        timed=128,
        singles=10,
        metrics=("fidelity", "latency", "size"),
    )
    rows = [BenchmarkRow(folder) for folder in (*folders, *in_pytorch_alone, *cascades)]
    for place in HERE_TOO if places is None else places:
        here = [*folders, *(cascades if place == ("onnxruntime", "int8") else ())]
        rows += [BenchmarkRow(folder, *place) for folder in here]
    return [trial.to_dict() for trial in benchmark.compare(rows, task)]


def named(row: dict[str, Any]) -> tuple[str, str]:
    """Return a row's model, and where it ran."""
    model, _, place = row["name"].partition(" (")
    places = {STATIC: STATIC, **{" ".join(key): said for key, said in PLACES.items()}}
    return model, places[place.rstrip(")")] if place else "PyTorch"


def known(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a row's measurements by name; the task's own metric, which is the first, as `quality` too."""
    return {"quality": row["measurements"][0], **{one["metric"]: one for one in row["measurements"]}}


def write(results: Path, found: dict[str, Rows], *others: Callable[[str, Rows], str]) -> None:
    """Write what was measured, and the tables and the picture that follow from it.

    Args:
        results: file of the measurements; tables and picture lie beside it.
        found: the rows of each task; if there are none, nothing is written.
        others: make further tables of a task.
    """
    if not found:
        return
    results.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    tables = by_place(found)
    for name, rows in found.items():
        tables += [make(name, rows) for make in (sizes, *others)]
    results.with_suffix(".md").write_text("\n".join(tables))
    picture(found).savefig(results.with_suffix(".png"), dpi=110, metadata={"Software": "whet"})


def by_place(tasks: dict[str, Rows]) -> list[str]:
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


def sizes(name: str, rows: Rows) -> str:
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


def picture(tasks: dict[str, Rows]) -> Figure:
    """Return quality over speed, one panel a task: a colour for every model, a mark for every place."""
    models = list(dict.fromkeys(named(row)[0] for rows in tasks.values() for row in rows))
    figure = Figure(figsize=(13, 9) if len(tasks) > 1 else (8, 6), layout="constrained")
    panels = figure.subplots(min(2, len(tasks)), math.ceil(len(tasks) / 2), squeeze=False).flat
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
                marker=MARKS[place],
                color=f"C{models.index(model)}",
                elinewidth=0.6,
            )
        panel.set(title=task, xlabel="sentences/s, times dense PyTorch", ylabel=dense["metric"])
    places = {named(row)[1] for rows in tasks.values() for row in rows}
    figure.legend(
        handles=[*legend(models, places), Patch(color="0.92", label="dense PyTorch, 95 % interval")],
        loc="outside lower center",
        ncols=min(5, 2 * len(tasks) + 1),
    )
    return figure


def legend(models: Sequence[str], places: Collection[str]) -> list[Line2D]:
    """Return the legend of a picture: a colour for every model, a mark for every place where one ran."""
    shown = [Line2D([], [], color=f"C{i}", linewidth=3, label=model) for i, model in enumerate(models)]
    return shown + [
        Line2D([], [], color="0.4", linestyle="", marker=mark, label=name)
        for name, mark in MARKS.items()
        if name in places
    ]
