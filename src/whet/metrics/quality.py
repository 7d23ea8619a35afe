"""How often, or how nearly, the model is right: the metrics of GLUE and macro F1, by scikit-learn and SciPy."""

import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from whet.measurement import Comparison, mcnemar
from whet.metric import Quality

__all__ = ["F1", "Accuracy", "MacroF1", "Matthews", "Pearson", "Spearman"]

Array = np.ndarray[Any, Any]


class Accuracy(Quality):
    """Share of examples whose class is right; compared by McNemar's exact test."""

    name: ClassVar[str] = "accuracy"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return float((labels == predictions).mean())

    def compare(self, labels: Array, model: Array, baseline: Array, *, seed: int) -> Comparison:
        """See `Quality.compare`."""
        return mcnemar(model == labels, baseline == labels, seed=seed)


class F1(Quality):
    """F1 of class 1, as for MRPC and QQP."""

    name: ClassVar[str] = "f1"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return float(f1_score(labels, predictions, zero_division=0.0))


class MacroF1(Quality):
    """Mean of the F1 of every class."""

    name: ClassVar[str] = "macro_f1"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


class Matthews(Quality):
    """Matthews' correlation, as for CoLA; zero where the model always says the same."""

    name: ClassVar[str] = "matthews"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return float(matthews_corrcoef(labels, predictions))


class _Correlation(Quality):
    """A correlation of scores; zero where the model always says the same."""

    def predict(self, logits: Array) -> Array:
        """See `Quality.predict`."""
        scores: Array = logits[:, 0]
        return scores

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(self.correlation(labels, predictions))

    @abstractmethod
    def correlation(self, labels: Array, predictions: Array) -> float:
        """Return the correlation of two (examples,) arrays that are not constant."""


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
