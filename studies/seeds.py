"""What the studies that train with several seeds share: answers on the dev split, comparisons over both, results."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import whet
from whet.models import class_order, common_max_length, load_tokenizer, predict
from whet.tasks import encode

RESAMPLES = 2000
Array = np.ndarray[Any, Any]
Score = Callable[[Array, Array], float]
Rows = list[dict[str, Any]]
METRICS = ("matthews", "accuracy")
"""What pictures show: the first that the rows have."""


def predictions(folder: Path, task: whet.Task) -> Array:
    """Return (examples,) what a model says of the dev split, in its order."""
    model, tokenizer = whet.load_model(folder), load_tokenizer(folder)
    batches = encode(task.splits.dev, tokenizer, max_length=common_max_length(128, model), batch_size=32)
    answers = predict(model, batches, name=folder.name).ordered(class_order(model, task))
    predicted: Array = answers.kind.predictions(answers, batches)
    return predicted


def curve(folder: Path) -> list[dict[str, float]]:
    """Return a model's learning curve."""
    with (folder / "curve.csv").open() as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def summary(labels: Array, runs: Array, score: Score) -> dict[str, Any]:
    """Return the mean score over seeds with a 95 % interval over seeds and examples, drawn anew together.

    Args:
        labels: (examples,).
        runs: (seeds, examples) predictions.
        score: from labels and predictions to the metric.
    """
    drawn = _resampled(labels, lambda drawn, seeds: _mean(labels, runs, score, drawn, seeds), len(runs))
    each = [score(labels, run) for run in runs]
    return {"value": float(np.mean(each)), **_interval(drawn), "seeds": each}


def difference(labels: Array, runs: Array, baseline: Array, score: Score) -> dict[str, Any]:
    """Return the mean difference of two models' scores, paired by seed and example, with its interval and p.

    Args:
        labels: (examples,).
        runs: (seeds, examples) predictions.
        baseline: (seeds, examples) of the other model; one seed stands for all.
        score: from labels and predictions to the metric.
    """
    other = np.broadcast_to(baseline, runs.shape)

    def statistic(drawn: Array, seeds: Array) -> float:
        return _mean(labels, runs, score, drawn, seeds) - _mean(labels, other, score, drawn, seeds)

    drawn = _resampled(labels, statistic, len(runs))
    # twice the smaller tail, of which the observed value is one more draw
    p = min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (RESAMPLES + 1))
    value = statistic(np.arange(len(labels)), np.arange(len(runs)))
    return {"value": value, **_interval(drawn), "p_value": float(p)}


def read(folder: Path) -> dict[str, Rows]:
    """Return the rows of every part of a study that ran so far."""
    results = folder / "results.json"
    found: dict[str, Rows] = json.loads(results.read_text()) if results.is_file() else {}
    return found


def write(folder: Path, found: dict[str, Rows], table: Callable[[str, Rows], str], *, label: str) -> None:
    """Write results.json, and the tables and the picture that follow from it.

    Args:
        folder: of the study.
        found: the rows of every part, with a summary of a metric of `METRICS` in each.
        table: from a part's name and rows to its table.
        label: where rows have their name.
    """
    if not found:
        raise SystemExit(f"a study must have run before it is shown, but {folder} has no results; run a part of it")
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "results.md").write_text("\n".join(table(name, rows) for name, rows in found.items()))
    picture(found, label=label).savefig(folder / "results.png", dpi=130, metadata={"Software": "whet"})


def picture(found: dict[str, Rows], *, label: str) -> Figure:
    """Return one panel a part and one line a model: its mean with the interval, and grey dots for its seeds."""
    figure = Figure(figsize=(6 * len(found), 4), layout="constrained")
    panels: Any = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, rows) in zip(panels, found.items(), strict=True):
        metric = next(one for one in METRICS if one in rows[0])
        for i, one in enumerate(row[metric] for row in rows):
            arms = [[one["value"] - one["low"]], [one["high"] - one["value"]]]
            panel.plot(one["seeds"], [i] * len(one["seeds"]), "o", color="0.75", markersize=4)
            panel.errorbar(one["value"], i, xerr=arms, fmt="D", capsize=3, color="C0")
        panel.set_yticks(range(len(rows)), [row[label] for row in rows], fontsize="small")
        panel.invert_yaxis()
        panel.set(title=name, xlabel=f"{metric} on dev")
    return figure


def _mean(labels: Array, runs: Array, score: Score, drawn: Array, seeds: Array) -> float:
    return float(np.mean([score(labels[drawn], runs[seed][drawn]) for seed in seeds]))


def _resampled(labels: Array, statistic: Callable[[Array, Array], float], seeds: int) -> Array:
    """(RESAMPLES,) the statistic of examples and seeds drawn anew."""
    random = np.random.default_rng(0)
    return np.array(
        [
            statistic(random.integers(len(labels), size=len(labels)), random.integers(seeds, size=seeds))
            for _ in range(RESAMPLES)
        ]
    )


def _interval(drawn: Array) -> dict[str, float]:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"low": float(low), "high": float(high)}
