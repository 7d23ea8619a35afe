"""Draw the picture of README.md, and print its table, from what studies/frontier measured.

python docs/picture.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies" / "frontier" / "results.json"
PICTURE = ROOT / "docs" / "images" / "before_after.png"
CHOSEN = {
    "tweet_sentiment": ("tweet sentiment", "structure 3, recovered"),
    "glue/stsb": ("STS-B", "structure 3, recovered"),
    "glue/mrpc": ("MRPC", "structure 3, recovered"),
    "glue/rte": ("RTE", "structure 3, recovered"),
    "glue/cola": ("CoLA", "structure 2, recovered"),
    "glue/sst2": ("SST-2", "structure 2, recovered"),
}
"""By the study's name of a task: its name for readers, and the model shown."""
RUNTIME = " (onnxruntime int8)"


class Row(NamedTuple):
    """What the table says of one task; comparisons are with the dense model in PyTorch."""

    task: str
    metric: str
    dense: dict[str, float]
    """Times as many texts a second of the dense model in int8, with its interval."""
    batches: dict[str, float]
    """The same of the compressed one."""
    singles: dict[str, float]
    """Times as fast for single texts."""
    change: dict[str, float]
    """Difference of the metric."""
    mib: float


def rows() -> Iterator[Row]:
    """Yield the rows of the table."""
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))["whole"]
    for task, (title, model) in CHOSEN.items():
        models = {trial["name"]: trial["measurements"] for trial in measured[task]}
        dense, small = (_by_metric(models[name + RUNTIME]) for name in ("dense", model))
        metric = models["dense"][0]["metric"]
        versus = [small[name]["versus"] for name in ("throughput", "latency_median", metric)]
        yield Row(title, metric, dense["throughput"]["versus"], *versus, small["disk"]["value"])


def cells(row: Row) -> list[str]:
    """Return the cells of a row of the table."""
    metric = row.metric if row.metric in ("accuracy",) else row.metric.capitalize()
    change = f"{metric} {_signed(row.change['value'])} ({_signed(row.change['low'])} to {_signed(row.change['high'])})"
    times = [f"{one['value']:.2f}x" for one in (row.dense, row.batches, row.singles)]
    return [row.task, times[0], f"**{times[1]}**", times[2], change, f"{row.mib:.1f}"]


def draw() -> Figure:
    """Return the picture: bars of the dense model in int8 and of the compressed one, by task."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(rows()):
        for place, one, colour in ((i - 0.2, row.dense, "#9aa5b1"), (i + 0.2, row.batches, "#1f6feb")):
            arms = [[one["value"] - one["low"]], [one["high"] - one["value"]]]
            axes.barh(place, one["value"], height=0.38, color=colour, xerr=arms, error_kw={"elinewidth": 1})
        change = [100 * row.change[name] for name in ("value", "low", "high")]
        said = "{:+.1f} points ({:+.1f} to {:+.1f})".format(*change)
        axes.text(row.batches["high"] + 0.1, i + 0.2, f"{row.batches['value']:.1f}x, {said}", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1)
    axes.text(1.05, -0.62, "dense, PyTorch", fontsize=9)
    axes.set_yticks(range(len(CHOSEN)), [title for title, _ in CHOSEN.values()])
    axes.invert_yaxis()
    axes.set_xlim(0, 13.5)
    axes.set_ylim(len(CHOSEN) - 0.5, -0.8)
    axes.set_xlabel("texts a second, times dense PyTorch (95 % intervals)")
    labels = (("dense, ONNX Runtime int8", "#9aa5b1"), ("whet, ONNX Runtime int8", "#1f6feb"))
    bars = [axes.barh(0, 0, color=colour) for _, colour in labels]
    figure.legend(bars, [text for text, _ in labels], loc="outside upper right", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _by_metric(measurements: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["metric"]: one for one in measurements}


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    draw().savefig(PICTURE, dpi=110, metadata={"Software": None})
    for row in rows():
        print("| " + " | ".join(cells(row)) + " |")
