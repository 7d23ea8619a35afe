"""Pictures of measurements and learning curves, and the CSV form of learning curves.

Names in a picture are those of folders, which hold any characters: none of them is a formula, and none is worth a
warning.
"""

import csv
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from whet.evaluation.formatting import TIMES
from whet.evaluation.frontier import Frontier
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words
from whet.training.curve import Epoch
from whet.utils.progress import note

__all__ = ["curve_csv", "curve_files", "curve_picture", "mark_sizes", "read_curve", "trade_off_picture"]

CURVE = "curve.csv"
"""The learning curve's table in the folder of a trained model."""
_WIDTH = 60
"""The most characters of a name that a legend shows."""

MARKS = "os^DvPX*h"
"""Marker shapes, one per model."""


@contextmanager
def _plain_text() -> Iterator[None]:
    """Draw every text as it is, within the block: `$` begins no formula, and a character without a glyph is a box."""
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*missing from font", UserWarning)
        yield


def curve_files(curve: Sequence[Epoch], name: str, *, metric: str, teacher: Path | None) -> dict[str, bytes]:
    """Return the files of a learning curve by name: the table, and the picture if it can be drawn.

    Args:
        curve: the curve.
        name: name of the model.
        metric: name of the metric.
        teacher: folder of the model's teacher, whose curve is shown beside it if the folder holds one.
    """
    files = {CURVE: curve_csv(curve)}
    try:
        shown = {name: curve}
        if teacher is not None and (teacher / CURVE).is_file():
            shown = {f"teacher {teacher.name}": read_curve(teacher / CURVE), **shown}
        files["curve.png"] = curve_picture(shown, metric=metric)
    except Exception as error:
        # whatever is wrong with a picture, it is not worth a trained model
        note(f"the learning curve of {name} is saved as {CURVE} alone; it could not be drawn: {error!r}")
    return files


def curve_csv(curve: Sequence[Epoch]) -> bytes:
    """Return a learning curve as UTF-8 CSV, one row per epoch."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    writer.writerows(curve)
    return text.getvalue().encode()


def read_curve(path: Path) -> list[Epoch]:
    """Return the learning curve in a file that `curve_csv` made."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Epoch(**{name: float(row[name]) for name in Epoch._fields}) for row in csv.DictReader(file)]


@_plain_text()
def curve_picture(curves: Mapping[str, Sequence[Epoch]], *, metric: str) -> bytes:
    """Return a PNG of learning curves: losses on the left, the metric on held-out data on the right.

    Args:
        curves: the curves, by the name of their model.
        metric: name of the metric.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for i, (name, curve) in enumerate(curves.items()):
        epochs, color, shown = [row.epoch for row in curve], f"C{i}", _label(name)
        training, held_out, scores = zip(*(row[1:] for row in curve), strict=True)
        losses.plot(epochs, training, marker="o", linestyle="--", color=color, label=f"{shown}, training")
        losses.plot(epochs, held_out, marker="s", color=color, label=f"{shown}, held-out training data")
        quality.plot(epochs, scores, marker="s", color=color, label=shown)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend(fontsize="small")
    quality.set(xlabel="epoch", ylabel=f"{metric} on held-out training data")
    return _file(figure)


@_plain_text()
def trade_off_picture(
    trials: Sequence[Trial],
    *,
    quality: str,
    costs: Sequence[str],
    software: str = "whet",
    form: Literal["png", "svg"] = "png",
) -> bytes:
    """Return a picture of quality against each cost, with 95 % intervals on both axes; the same trials, the same bytes.

    Marks differ in color and shape; their area is the size on disk, if all trials have it. A line joins the trials that
    no other trial dominates.

    Args:
        trials: the trials, the baseline first.
        quality: metric of the vertical axis.
        costs: metrics of the horizontal axes, one panel each.
        software: name of the generator in the file's metadata.
        form: of the file.
    """
    figure = Figure(figsize=(4.6 * len(costs) + 2.2, 4.2), layout="constrained")
    panels = figure.subplots(1, len(costs), squeeze=False)[0]
    sizes = mark_sizes(trials)
    for axes, cost in zip(panels, costs, strict=True):
        for i, trial in enumerate(trials):
            x, y = trial.get(cost), trial.get(quality)
            mark = {"marker": MARKS[i % len(MARKS)], "markersize": sizes[i], "color": f"C{i % 10}", "alpha": 0.85}
            axes.errorbar(
                x.value, y.value, _arms(y), _arms(x), linestyle="", capsize=3, label=_label(trial.name), **mark
            )
        best = sorted(Frontier.of(trials, (quality, cost)).trials, key=lambda trial: trial.get(cost).value)
        xs, ys = ([trial.get(metric).value for trial in best] for metric in (cost, quality))
        axes.plot(xs, ys, color="0.6", linestyle="--", zorder=0, label="not dominated")
        first = trials[0].get(cost)
        unit = "times the baseline" if first.unit == TIMES else first.unit
        words = metric_in_words(first)
        shown = f"{words} ({unit})" if unit not in ("", "1/s") else words
        axes.set(xlabel=shown, ylabel=metric_in_words(trials[0].get(quality)))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small", markerscale=0.7)
    return _file(figure, software, form)


def mark_sizes(trials: Sequence[Trial]) -> list[float]:
    """Return the diameter of each mark in points, with areas proportional to sizes on disk above a minimum."""
    stored = [one.value for trial in trials for one in trial.measurements if one.metric == "disk"]
    if len(stored) < len(trials):
        return [7.0] * len(trials)
    return [max(4.0, 13.0 * (size / max(stored)) ** 0.5) for size in stored]


def _arms(measurement: Measurement) -> list[list[float]]:
    return [[measurement.value - measurement.low], [measurement.high - measurement.value]]


def _label(name: str) -> str:
    """Return a name as one short line that a legend shows; matplotlib hides labels that begin with an underscore."""
    line = "".join(letter if letter.isprintable() else "?" for letter in name)
    short = line if len(line) <= _WIDTH else f"{line[: _WIDTH // 2]}...{line[3 - _WIDTH // 2 :]}"
    return f" {short}" if short.startswith("_") else short


def _file(figure: Figure, software: str = "whet", form: Literal["png", "svg"] = "png") -> bytes:
    buffer = io.BytesIO()
    # a fixed tag and ids, and no date, make the file reproducible
    about = {"Software": software} if form == "png" else {"Creator": software, "Date": None}
    with mpl.rc_context({"svg.hashsalt": "whet"}):
        figure.savefig(buffer, format=form, dpi=130, metadata=about)
    return buffer.getvalue()
