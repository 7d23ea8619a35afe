"""A metric looks at several models side by side and returns measurements of each; the first model is the baseline."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.significance import bootstrap, paired_bootstrap
from whet.tasks.data import Batches
from whet.tasks.kinds.base import kind_of_head
from whet.utils.lookup import choose, members
from whet.utils.precision import FP32, PYTORCH

Array = np.ndarray[Any, Any]

__all__ = ["Metric", "ModelUnderTest", "Quality", "all_metrics", "metric_named", "quality_named"]


@dataclass(frozen=True)
class ModelUnderTest:
    """One model to be measured, with the same examples as every other, in its own tokens."""

    name: str
    """What the table calls it."""
    source: str
    """Folder or hub name that it was loaded from."""
    model: nn.Module
    """In eval mode, on `device`."""
    device: str
    """As torch names it."""
    max_length: int
    """Longest input in tokens."""
    dev: Batches
    """The dev examples, shortest first, padded batch by batch."""
    logits: Array
    """(examples, classes) its answers to them, in that order; the classes in the task's order."""
    singles: Batches
    """A sample of the dev examples spread evenly over their lengths, one a batch."""
    timed: Batches
    """A sample spread the same way, in batches by the same rule as `dev`'s."""
    rounds: int
    """How often each timed batch runs."""
    seed: int
    """Of resampling and of the order of runs."""
    order: tuple[int, ...] = ()
    """The model's class for each of the task's."""
    runtime: str = PYTORCH
    """Where it runs."""
    precision: str = FP32
    """The precision that its runtime computes in."""
    files: tuple[Path, ...] = ()
    """What the runtime reads; the weights, if none are named."""


class Metric(ABC):
    """One thing to measure."""

    name: ClassVar[str]
    """As tasks and tables call it."""
    universal: ClassVar[bool] = True
    """Whether it applies to every task; the others are asked for by the task."""

    @abstractmethod
    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """Return the measurements of each subject; those after the first are compared with the first."""


class Quality(Metric):
    """A metric of predictions against labels, with a bootstrap interval over examples and a paired bootstrap test."""

    universal: ClassVar[bool] = False

    @abstractmethod
    def score(self, labels: Array, predictions: Array) -> float:
        """Return the metric of (examples,) predictions against (examples,) labels."""

    def predict(self, logits: Array) -> Array:
        """Return (examples,) predictions from (examples, outputs) logits."""
        return kind_of_head(logits.shape[-1]).predictions(logits)

    def compare(self, labels: Array, model: Array, baseline: Array, *, seed: int) -> Comparison:
        """Return the paired comparison of two models' predictions."""
        return paired_bootstrap(
            lambda drawn: self.score(labels[drawn], model[drawn]),
            lambda drawn: self.score(labels[drawn], baseline[drawn]),
            len(labels),
            seed=seed,
        )

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        labels = subjects[0].dev.labels
        predictions = [self.predict(subject.logits) for subject in subjects]
        return [
            [self._measurement(labels, predicted, predictions[0] if i else None, subjects[0].seed)]
            for i, predicted in enumerate(predictions)
        ]

    def _measurement(self, labels: Array, predicted: Array, baseline: Array | None, seed: int) -> Measurement:
        estimate = bootstrap(lambda drawn: self.score(labels[drawn], predicted[drawn]), len(labels), seed=seed)
        return Measurement(
            metric=self.name,
            **estimate._asdict(),
            unit="",
            n=len(labels),
            better="higher",
            versus=None if baseline is None else self.compare(labels, predicted, baseline, seed=seed),
        )


def all_metrics() -> dict[str, type[Metric]]:
    """Return every metric by name."""
    return {metric.name: metric for metric in members("whet.evaluation.metrics", Metric)}


def metric_named(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known = all_metrics()
    return known[choose(name, known, what="the metric")]()


def quality_named(name: str) -> Quality:
    """Return the quality metric of that name.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known = {key: metric for key, metric in all_metrics().items() if issubclass(metric, Quality)}
    return known[choose(name, known, what="the metric")]()
