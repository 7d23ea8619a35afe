"""How far a model's predictions are from the baseline's, correct or not.

KL(baseline ‖ model) in nats, a mean over rows of logits, and the disagreement, which is the fraction of rows whose
decision differs: the class of a text, the tag of a word. Scores and vectors decide nothing: each changes a little.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest
from whet.evaluation.significance import bootstrap

__all__ = ["Fidelity"]

Array = np.ndarray[Any, Any]


class Fidelity(Metric):
    """Mean KL and disagreement over the rows of the dev examples, with bootstrap intervals; zero for the baseline."""

    name: ClassVar[str] = "fidelity"

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        return [_against(subjects[0], subject) for subject in subjects]


def _against(baseline: ModelUnderTest, subject: ModelUnderTest) -> list[Measurement]:
    measurements = [_mean("kl", baseline.answers.divergences(subject.answers), "nats", subject)]
    different = baseline.answers.disagreements(subject.answers)
    return measurements if different is None else [*measurements, _mean("disagreement", different, "", subject)]


def _mean(metric: str, values: Array, unit: str, subject: ModelUnderTest) -> Measurement:
    """The mean over rows, with the interval over resampled examples, which own several rows or one.

    Rows that belong to no example, such as those of a corpus, count as examples of their own.
    """
    inputs, owners = subject.answers.inputs, subject.dev.owners
    owned = inputs if owners is None else np.where(owners[inputs] < 0, len(subject.dev.labels) + inputs, owners[inputs])
    _, group = np.unique(owned, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    estimate = bootstrap(lambda drawn: float(sums[drawn].sum() / counts[drawn].sum()), len(sums), seed=subject.seed)
    return Measurement(metric=metric, **estimate._asdict(), unit=unit, n=len(sums), better="lower")
