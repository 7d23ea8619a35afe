"""Metrics of predictions against labels: those of GLUE, and F1 over classes."""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from whet.errors import InvalidData
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.metrics.base import ModelUnderTest, Quality
from whet.evaluation.significance import mcnemar
from whet.tasks.pairing import PositiveClass

__all__ = ["F1", "Accuracy", "MacroF1", "Matthews", "Pearson", "Spearman", "WeightedF1"]

Array = np.ndarray[Any, Any]


CLASS_1 = PositiveClass(1, "1")
"""The class that f1 scores where no task says more."""


class Accuracy(Quality):
    """Fraction of examples with the correct class; models are compared by McNemar's exact test."""

    name: ClassVar[str] = "accuracy"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return float((labels == predictions).mean())

    def compare(self, labels: Array, model: Array, baseline: Array, *, seed: int) -> Comparison:
        """See `Quality.compare`."""
        return mcnemar(model == labels, baseline == labels)


class _FromConfusion(Quality):
    """A metric that depends only on the confusion matrix, which makes each resample cheap."""

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        classes = int(max(labels.max(), predictions.max())) + 1
        counts = np.bincount(labels * classes + predictions, minlength=classes * classes)
        return self.of(counts.reshape(classes, classes).astype(float))

    @abstractmethod
    def of(self, confusion: Array) -> float:
        """Return the metric of a confusion matrix.

        Args:
            confusion: (classes, classes) counts, labels in rows and predictions in columns.
        """


def _f1_by_class(confusion: Array) -> Array:
    """Return the F1 of each class that occurs among labels or predictions, (occurring classes,)."""
    occurrences = confusion.sum(0) + confusion.sum(1)
    f1: Array = 2 * confusion.diagonal()[occurrences > 0] / occurrences[occurrences > 0]
    return f1


class F1(_FromConfusion):
    """F1 of one class, class 1 for MRPC and QQP; zero if the model never predicts it."""

    name: ClassVar[str] = "f1"
    of_one_class: ClassVar[bool] = True

    def __init__(self, positive: PositiveClass = CLASS_1) -> None:
        self._positive = positive

    def for_class(self, positive: PositiveClass | None) -> "F1":
        """See `Quality.for_class`."""
        if positive is None:
            raise InvalidData(
                "f1 must score a class of the data, but got none that is the model's class 1; give --positive"
            )
        return F1(positive)

    def renumbered(self, order: Sequence[int]) -> "F1":
        """See `Quality.renumbered`."""
        return F1(replace(self._positive, index=order[self._positive.index]))

    @property
    def conditions(self) -> dict[str, Any]:
        """See `Quality.conditions`."""
        return {"class": self._positive.name}

    def of(self, confusion: Array) -> float:
        """See `_FromConfusion.of`."""
        index = self._positive.index
        if len(confusion) <= index:
            return 0.0
        occurrences = confusion[index].sum() + confusion[:, index].sum()
        return float(2 * confusion[index, index] / occurrences) if occurrences else 0.0


class MacroF1(_FromConfusion):
    """Unweighted mean of the F1 of all classes; measured on every classification task."""

    name: ClassVar[str] = "macro_f1"
    universal: ClassVar[bool] = True

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        return (
            super().measure(subjects) if subjects[0].answers.kind.name() == "classification" else [[] for _ in subjects]
        )

    def of(self, confusion: Array) -> float:
        """See `_FromConfusion.of`."""
        return float(_f1_by_class(confusion).mean())


class WeightedF1(_FromConfusion):
    """Mean of the F1 of all classes, weighted by the number of examples with each label."""

    name: ClassVar[str] = "weighted_f1"

    def of(self, confusion: Array) -> float:
        """See `_FromConfusion.of`."""
        predicted, true = confusion.sum(0), confusion.sum(1)
        return float(_f1_by_class(confusion) @ true[predicted + true > 0] / true.sum())


class Matthews(_FromConfusion):
    """Matthews' correlation coefficient, as for CoLA; zero if all predictions or all labels are equal.

    Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004,
    doi 10.1016/j.compbiolchem.2004.09.006.
    """

    name: ClassVar[str] = "matthews"

    def of(self, confusion: Array) -> float:
        """See `_FromConfusion.of`."""
        total, correct = confusion.sum(), confusion.trace()
        predicted, true = confusion.sum(0), confusion.sum(1)
        variances = (total**2 - predicted @ predicted) * (total**2 - true @ true)
        return float((correct * total - predicted @ true) / np.sqrt(variances)) if variances > 0 else 0.0


class _Correlation(Quality):
    """A correlation of scores; zero if all predictions or all labels are equal."""

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(self.correlation(labels, predictions))

    @abstractmethod
    def correlation(self, labels: Array, predictions: Array) -> float:
        """Return the correlation of two (examples,) arrays, neither of which is constant."""


class Pearson(_Correlation):
    """Pearson's correlation, as for STS-B."""

    name: ClassVar[str] = "pearson"

    def correlation(self, labels: Array, predictions: Array) -> float:
        """See `_Correlation.correlation`."""
        return float(stats.pearsonr(labels, predictions).statistic)


class Spearman(_Correlation):
    """Spearman's rank correlation, as for STS-B."""

    name: ClassVar[str] = "spearman"

    def correlation(self, labels: Array, predictions: Array) -> float:
        """See `_Correlation.correlation`."""
        return float(stats.spearmanr(labels, predictions).statistic)
