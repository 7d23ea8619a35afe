"""What the studies that train with several seeds share: answers on the dev split, and comparisons over both."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import whet
from whet.benchmark import answer, class_order, load_any
from whet.checkpoint import load_tokenizer, readable_length
from whet.encoding import encode
from whet.metric import quality_named

RESAMPLES = 2000
Array = np.ndarray[Any, Any]
Score = Callable[[Array, Array], float]


def predictions(folder: Path, task: whet.Task) -> Array:
    """Return (examples,) what a model says of the dev split, in its order."""
    model, tokenizer = load_any(folder), load_tokenizer(folder)
    batches = encode(task.splits.dev, tokenizer, max_length=readable_length(128, model), batch_size=32)
    logits = answer(model, batches, what=folder.name)[:, class_order(model, task)]
    return quality_named(task.metrics[0]).predict(logits)


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
    return {
        **_interval(labels, lambda drawn, seeds: _mean(labels, runs, score, drawn, seeds), len(runs)),
        "seeds": [score(labels, run) for run in runs],
    }


def difference(labels: Array, runs: Array, baseline: Array, score: Score) -> dict[str, Any]:
    """Return the mean difference of two models' scores, paired by seed and example, with its interval and p.

    Args:
        labels: (examples,).
        runs: (seeds, examples) predictions.
        baseline: (seeds, examples) of the other model; one seed stands for all.
        score: from labels and predictions to the metric.
    """
    other = np.broadcast_to(baseline, runs.shape)
    return _interval(
        labels,
        lambda drawn, seeds: _mean(labels, runs, score, drawn, seeds) - _mean(labels, other, score, drawn, seeds),
        len(runs),
    )


def draw(panel: Any, names: Sequence[str], scores: Sequence[dict[str, Any]]) -> None:
    """Draw one line a model: its mean with the interval, and grey dots for its seeds."""
    for i, one in enumerate(scores):
        arms = [[one["value"] - one["low"]], [one["high"] - one["value"]]]
        panel.plot(one["seeds"], [i] * len(one["seeds"]), "o", color="0.75", markersize=4)
        panel.errorbar(one["value"], i, xerr=arms, fmt="D", capsize=3, color="C0")
    panel.set_yticks(range(len(names)), names, fontsize="small")
    panel.invert_yaxis()


def _mean(labels: Array, runs: Array, score: Score, drawn: Array, seeds: Array) -> float:
    return float(np.mean([score(labels[drawn], runs[seed][drawn]) for seed in seeds]))


def _interval(labels: Array, statistic: Callable[[Array, Array], float], seeds: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    drawn = np.array(
        [
            statistic(random.integers(len(labels), size=len(labels)), random.integers(seeds, size=seeds))
            for _ in range(RESAMPLES)
        ]
    )
    low, high = np.quantile(drawn, (0.025, 0.975))
    # twice the smaller tail, of which the observed value is one more draw
    p = min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (RESAMPLES + 1))
    value = statistic(np.arange(len(labels)), np.arange(seeds))
    return {"value": value, "low": float(low), "high": float(high), "p_value": float(p)}
