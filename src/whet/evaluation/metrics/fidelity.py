"""How far a model's predictions are from the baseline's, correct or not.

For classes: KL(baseline ‖ model) in nats, and the disagreement, which is the fraction of examples whose predicted class
differs. For scores: KL between normal distributions of unit variance, which is half the squared difference, and no
disagreement, since every score changes a little.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest
from whet.evaluation.significance import bootstrap
from whet.tasks.kinds.base import kind_of_head, kl_divergences

__all__ = ["Fidelity"]

Array = np.ndarray[Any, Any]


class Fidelity(Metric):
    """Mean KL and disagreement over the dev examples, with bootstrap intervals; zero for the baseline."""

    name: ClassVar[str] = "fidelity"

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        return [self._against(subjects[0].logits, subject) for subject in subjects]

    def _against(self, baseline: Array, subject: ModelUnderTest) -> list[Measurement]:
        measurements = [_mean("kl", kl_divergences(baseline, subject.logits), "nats", subject.seed)]
        if kind_of_head(baseline.shape[1]).has_classes:
            disagreement = (baseline.argmax(1) != subject.logits.argmax(1)).astype(float)
            measurements.append(_mean("disagreement", disagreement, "", subject.seed))
        return measurements


def _mean(metric: str, values: Array, unit: str, seed: int) -> Measurement:
    estimate = bootstrap(lambda drawn: float(values[drawn].mean()), len(values), seed=seed)
    return Measurement(metric=metric, **estimate._asdict(), unit=unit, n=len(values), better="lower")
