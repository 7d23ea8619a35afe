"""Metrics of sets of labels: F1 over all decisions, F1 of each label, and the precision of rankings.

A label is given where its probability is above .5; no threshold is tuned. Labels that a model has and the data lack are
mistakes wherever they are given.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from whet.evaluation.metrics.base import Quality, SummedQuality

__all__ = ["MacroLabelF1", "MeanAveragePrecision", "MicroF1"]

Array = np.ndarray[Any, Any]


class _OfDecisions(SummedQuality):
    """A metric of the decisions on each label."""

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`; right ones, given ones and true ones of each label, (examples, 3 · labels)."""
        true, given = _true(labels, predictions.shape[1]), predictions > 0.5
        return np.concatenate([true & given, given, true], axis=1).astype(float)


class MicroF1(_OfDecisions):
    """F1 over the decisions on all labels of all texts; zero if none is right."""

    name: ClassVar[str] = "micro_f1"

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        right, given, true = totals.reshape(3, -1).sum(1)
        return float(2 * right / (given + true)) if right else 0.0


class MacroLabelF1(_OfDecisions):
    """Unweighted mean of the F1 of all labels that occur, in the data or in predictions."""

    name: ClassVar[str] = "macro_label_f1"

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        right, given, true = totals.reshape(3, -1)
        occurring = given + true > 0
        return float((2 * right[occurring] / (given + true)[occurring]).mean()) if occurring.any() else 0.0


class MeanAveragePrecision(Quality):
    """Mean over the labels that occur of the average precision of the texts, ranked by the label's probability.

    AP = Σ (R_n − R_{n−1}) P_n over the different probabilities, as in scikit-learn: no threshold is needed.
    """

    name: ClassVar[str] = "mean_average_precision"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return self.statistic(labels, predictions)(np.arange(len(labels)))

    def statistic(self, labels: Array, predictions: Array) -> Callable[[Array], float]:
        """See `Quality.statistic`; texts are ranked once, and a text that is drawn twice weighs 2."""
        rankings = _Rankings(_true(labels, predictions.shape[1]), predictions)
        return lambda drawn: rankings.mean_average_precision(np.bincount(drawn, minlength=len(labels)))


class _Rankings:
    """The texts in falling order of each label's probability, of which only those with the label are looked at."""

    def __init__(self, true: Array, probabilities: Array) -> None:
        """Rank the texts.

        Args:
            true: (texts, labels) bool.
            probabilities: (texts, labels).
        """
        falling = -probabilities.T
        self._order = np.argsort(falling, axis=1, kind="stable")
        ranked = np.take_along_axis(falling, self._order, 1)
        self._label, rank = np.nonzero(np.take_along_axis(true.T, self._order, 1))
        self._texts = self._order[self._label, rank]
        # equal probabilities count together: each text to the last one of its equals
        last = np.array(
            [
                np.searchsorted(ranked[label], ranked[label, i], "right") - 1
                for label, i in zip(self._label, rank, strict=True)
            ],
            dtype=int,
        )
        self._last = self._label * len(true) + last
        _, first, group = np.unique(self._last, return_index=True, return_inverse=True)
        self._last_hit = np.append(first[1:], len(self._last))[group] - 1
        self._start = np.searchsorted(self._label, self._label)

    def mean_average_precision(self, weights: Array) -> float:
        """Return the mean over labels that occur; NaN if none does.

        Args:
            weights: (texts,) how often each text counts.
        """
        seen = np.cumsum(weights[self._order], axis=1).reshape(-1)[self._last]
        own = weights[self._texts]
        hits = np.concatenate([[0], np.cumsum(own)])
        right = hits[self._last_hit + 1] - hits[self._start]
        gains = np.bincount(self._label, own * right / np.maximum(seen, 1))
        counts = np.bincount(self._label, own)
        occurring = counts > 0
        return float((gains[occurring] / counts[occurring]).mean()) if occurring.any() else math.nan


def _true(labels: Array, outputs: int) -> Array:
    """(examples, outputs) bool: which labels are true; the model's labels that the data lack come last."""
    sets = np.array(labels.tolist(), dtype=bool)
    return np.pad(sets, ((0, 0), (0, outputs - sets.shape[1])))
