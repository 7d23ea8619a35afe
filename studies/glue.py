"""What studies share: the fine-tuned models that they start from, and how a measurement is written."""

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import whet

FINE_TUNING: dict[str, list[dict[str, Any]]] = {
    "glue/mrpc": [{"epochs": 3, "learning_rate": 1e-4}, {"epochs": 5, "learning_rate": 1e-4}],
    "glue/cola": [{"epochs": 5, "learning_rate": 1e-4}],
    "glue/rte": [{"epochs": 5, "learning_rate": 1e-4}],
    "glue/stsb": [{"epochs": 3, "learning_rate": 1e-4}],
    "glue/sst2": [{"epochs": 0.5, "learning_rate": 1e-4}],
    "glue/wnli": [{"epochs": 5, "learning_rate": 1e-4}],
    "goemotions": [{"epochs": 2, "learning_rate": 2e-4}],
    "conll2003": [{"epochs": 2, "learning_rate": 1e-4}],
    "wnut17": [{"epochs": 6, "learning_rate": 1e-4}],
}
"""Settings tried; where there are several, the loss on the held-out training examples decides, since the metric of so
few examples cannot tell settings apart. STS-B, SST-2 and GoEmotions are trained for less time than would be best."""
CURVES = Path(__file__).parent / "fine_tuning.json"


def fine_tuned(base: str, task: whet.Task, folder: Path) -> Path:
    """Return the folder of the fine-tuned model, trained where it is missing; of several settings, the best held-out.

    Every setting's learning curve goes to `fine_tuning.json` beside this file.
    """
    dense, tried = folder / "dense", []
    if dense.is_dir():
        return dense
    for number, settings in enumerate(FINE_TUNING[task.name]):
        candidate = folder / f"candidate {number}"
        if not candidate.is_dir():
            whet.finetune(base, task, candidate, settings=whet.TrainingSettings(**settings))
        with (candidate / "curve.csv").open() as lines:
            curve = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]
        tried.append({**settings, "curve": curve})
    held_out = [row["curve"][-1]["validation_loss"] for row in tried]
    best = held_out.index(min(held_out))
    found = json.loads(CURVES.read_text()) if CURVES.is_file() else {}
    found[task.name] = {"chosen": best, "tried": tried}
    CURVES.write_text(json.dumps(found, indent=1) + "\n")
    (folder / f"candidate {best}").rename(dense)
    return dense


def row_of(row: dict[str, Any], quality: str) -> str:
    """Return one model's line of a Markdown table, under `HEADER`."""
    by_name = {one["metric"]: one for one in row["measurements"]}
    score, kl, speed = by_name[quality], by_name["kl"], by_name["throughput"]["versus"]
    versus = "" if score["versus"] is None else f"{score['versus']['value']:+.3f} ({score['versus']['p_value']:.2g})"
    faster = "1" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})"
    return (
        f"| {row['name']} | {interval(score, 3)} | {versus} | {interval(kl, 4)} | {faster} |"
        f" {by_name['parameters']['value']:,.0f} |"
    )


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the models of one task as a Markdown table."""
    quality = rows[0]["measurements"][0]["metric"]
    head = (
        "model",
        f"{quality} (95 % interval)",
        "against dense (p)",
        "KL (95 % interval)",
        "sentences/s, times dense",
    )
    lines = [f"### {name}", "", f"| {' | '.join(head)} | parameters |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(row_of(row, quality) for row in rows), ""])


def interval(one: dict[str, Any], digits: int) -> str:
    """Return a value with its interval."""
    return f"{one['value']:.{digits}f} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"


def picture(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return quality over speed, one panel a task; a model looks the same in all."""
    names = list(dict.fromkeys(row["name"] for rows in found.values() for row in rows[1:]))
    columns = max(1, round(1.1 * len(found)))  # of the legend, as long names need
    lines = math.ceil((1 + len(names)) / columns)
    figure = Figure(figsize=(3.6 * len(found), 3.2 + 0.2 * lines), layout="constrained")
    panels: Iterable[Any] = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, rows) in zip(panels, found.items(), strict=True):
        dense = rows[0]["measurements"][0]
        panel.axhspan(dense["low"], dense["high"], color="0.9", label="dense, 95 % interval")
        for row in rows[1:]:
            i = names.index(row["name"])
            score = row["measurements"][0]
            speed = next(one for one in row["measurements"] if one["metric"] == "throughput")["versus"]["value"]
            arms = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
            marker, color = "osD^v*P"[i % 7], f"C{i % 10}"
            panel.errorbar(speed, score["value"], yerr=arms, marker=marker, color=color, capsize=2, label=row["name"])
        panel.set(title=name, xlabel="sentences/s, times dense", ylabel=dense["metric"])
    shown = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=columns, fontsize="small")
    return figure
