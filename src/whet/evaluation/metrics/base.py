"""The bases of metrics: a metric measures several models side by side, of which the first is the baseline."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from torch import nn

from whet.evaluation.measurement import Better, Comparison, Measurement
from whet.evaluation.significance import bootstrap, paired_bootstrap, paired_factor
from whet.evaluation.slowness import Stopwatch
from whet.numerics.vectors import WHOLE, VectorForm
from whet.run.kinds.base import Predictor
from whet.run.predictor import in_texts
from whet.runtimes.base import ExportedModel
from whet.tasks.base import Task
from whet.tasks.data import Batches
from whet.tasks.kinds.base import Answers
from whet.tasks.pairing import PositiveClass
from whet.utils.lookup import choose, members
from whet.utils.precision import FP32, PYTORCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Array = np.ndarray[Any, Any]

__all__ = [
    "Metric",
    "ModelUnderTest",
    "Quality",
    "SummedQuality",
    "all_metrics",
    "metric_named",
    "quality_named",
    "task_qualities",
    "untimed_metrics",
]


@dataclass(frozen=True)
class ModelUnderTest:
    """One model to measure, with the examples that all models share, in the tokens of its own tokenizer."""

    name: str
    """Name of the model in tables."""
    source: str
    """Folder or hub name from which the model was loaded."""
    model: nn.Module
    """The model in eval mode, on `device`."""
    device: str
    """Device of the model, as torch names it."""
    max_length: int
    """Longest input in tokens."""
    dev: Batches
    """The dev examples, shortest first, padded batch by batch."""
    answers: Answers
    """To the dev examples, in the order of `dev`; outputs in the order of the task's classes."""
    singles: Batches
    """A sample of the dev examples with evenly spread lengths, one example per batch."""
    timed: Batches
    """A sample of the dev examples with evenly spread lengths, batched like `dev`."""
    rounds: int
    """How often each timed batch runs."""
    seed: int
    """Seed of resampling and of the order of runs."""
    order: tuple[int, ...] = ()
    """The index of each of the task's classes in the model's head."""
    runtime: str = PYTORCH
    """The runtime that executes the model."""
    precision: str = FP32
    """The precision in which the runtime computes."""
    files: tuple[Path, ...] = ()
    """The files that the runtime reads; empty means the weight files of `source`."""
    vectors: VectorForm = WHOLE
    """What an index keeps of an embedder's vectors, which `answers` are read from."""
    tokenizer: "PreTrainedTokenizerBase | None" = None
    """Of the model, where times are from texts; None where they are from token ids."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch, compare=False)
    """Runs while times are taken; that of the first model counts."""

    @cached_property
    def predictions(self) -> Array:
        """(examples,) predictions for the dev examples; see `TaskKind.predictions`."""
        return self.answers.kind.predictions(self.answers, self.dev)

    @cached_property
    def predictor(self) -> Predictor | None:
        """What answers texts where times are from texts, as `whet.load` does it."""
        if self.tokenizer is None:
            return None
        exported = self.model if isinstance(self.model, ExportedModel) else None
        return in_texts(
            cast("PreTrainedModel", self.model if exported is None else exported.model),
            self.tokenizer,
            source=self.source,
            max_length=self.max_length,
            batch_size=len(self.timed.batches[0]["input_ids"]),
            target=(self.runtime, self.precision),
            exported=None if exported is None else exported.session,
        )


class Metric(ABC):
    """One quantity, or a few related ones, to measure."""

    name: ClassVar[str]
    """Name of the metric in tasks and tables."""
    universal: ClassVar[bool] = True
    """Whether the metric applies to every task; other metrics are named by the task."""
    timed: ClassVar[bool] = False
    """Whether it takes times, for which nothing else should use the machine."""

    @abstractmethod
    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """Return the measurements of each subject; the other subjects are compared with the first, the baseline."""


class Quality(Metric):
    """A metric of predictions against labels, with a bootstrap interval over examples and a paired bootstrap test."""

    universal: ClassVar[bool] = False
    better: ClassVar[Better] = "higher"
    """Which way is good; models are compared by their difference, or by their factor where lower is better."""
    of_one_class: ClassVar[bool] = False
    """Whether the metric scores one class, the positive one."""

    def for_class(self, positive: PositiveClass | None) -> "Quality":
        """Return the metric that scores this class, if it scores one at all.

        Raises:
            InvalidData: it scores one, and there is none.
        """
        return self

    def for_labels(self, label_names: Sequence[str]) -> "Quality":
        """Return the metric for classes with these names, in their order."""
        return self

    def renumbered(self, order: Sequence[int]) -> "Quality":
        """Return the metric for labels and predictions in the numbering of a model, from `class_order`."""
        return self

    @property
    def conditions(self) -> dict[str, Any]:
        """What the metric depends on besides labels and predictions."""
        return {}

    @abstractmethod
    def score(self, labels: Array, predictions: Array) -> float:
        """Return the score of (examples,) predictions against (examples,) labels."""

    def statistic(self, labels: Array, predictions: Array) -> Callable[[Array], float]:
        """Return a function from the indices of drawn examples, (examples,), to their score.

        Args:
            labels: (examples,) labels.
            predictions: (examples,) predictions.
        """
        return lambda drawn: self.score(labels[drawn], predictions[drawn])

    def strata(self, labels: Array) -> Array | None:
        """Return (examples,) numbers of sets within which examples are drawn, or None if there is one set."""
        return None

    def compare(self, labels: Array, model: Array, baseline: Array, *, seed: int) -> Comparison:
        """Return the paired comparison of two models.

        Args:
            labels: (examples,) labels.
            model: (examples,) predictions of the model.
            baseline: (examples,) predictions of the baseline.
            seed: seed of resampling.
        """
        own, other = (self.statistic(labels, predictions) for predictions in (model, baseline))
        paired = paired_bootstrap if self.better == "higher" else paired_factor
        return paired(own, other, len(labels), seed=seed, strata=self.strata(labels))

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        labels = subjects[0].dev.labels
        predictions = [subject.predictions for subject in subjects]
        return [
            [self._measurement(labels, predicted, predictions[0] if i else None, subjects[0].seed)]
            for i, predicted in enumerate(predictions)
        ]

    def _measurement(self, labels: Array, predicted: Array, baseline: Array | None, seed: int) -> Measurement:
        statistic, strata = self.statistic(labels, predicted), self.strata(labels)
        estimate = bootstrap(statistic, len(labels), seed=seed, strata=strata)
        return Measurement(
            metric=self.name,
            **estimate._asdict(),
            unit="",
            n=len(labels),
            better=self.better,
            conditions=self.conditions,
            versus=None if baseline is None else self.compare(labels, predicted, baseline, seed=seed),
        )


class SummedQuality(Quality):
    """A metric that depends only on sums over examples, which makes each resample cheap."""

    @abstractmethod
    def counts(self, labels: Array, predictions: Array) -> Array:
        """Return what is summed, (examples, k), such as right answers and all."""

    @abstractmethod
    def of(self, totals: Array) -> float:
        """Return the metric of the sums, (k,)."""

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`."""
        return self.of(self.counts(labels, predictions).sum(0))

    def statistic(self, labels: Array, predictions: Array) -> Callable[[Array], float]:
        """See `Quality.statistic`; counted once."""
        counts = self.counts(labels, predictions)
        return lambda drawn: self.of(counts[drawn].sum(0))


def all_metrics() -> dict[str, type[Metric]]:
    """Return every metric by name."""
    return {metric.name: metric for metric in members("whet.evaluation.metrics", Metric)}


def untimed_metrics() -> tuple[str, ...]:
    """Return the names of the metrics of every task that take no times."""
    return tuple(name for name, metric in all_metrics().items() if metric.universal and not metric.timed)


def metric_named(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        UnknownName: there is no such metric; the message names the closest one.
    """
    available = all_metrics()
    return available[choose(name, available, what="the metric")]()


def task_qualities(task: Task, order: Sequence[int]) -> list[Quality]:
    """Return the quality metrics of a task, the main one first; the class that they score is said if nobody named it.

    Args:
        task: what models are for.
        order: the output of the model, or of the baseline, for each of the task's classes.

    Raises:
        UnknownName: there is no such metric.
        InvalidParameter, InvalidData: the class that they score is none of the task's, or there is none.
    """
    positive = task.positive_class(order)
    names = task.label_names or ()
    qualities = [quality_named(name).for_labels(names).for_class(positive) for name in task.metrics]
    if positive is not None and task.positive is None and not task.ordered:
        for quality in qualities:
            if quality.of_one_class:
                task.say_once(
                    "positive", f"{quality.name} is that of the class {positive.name}; --positive names another"
                )
    return qualities


def quality_named(name: str) -> Quality:
    """Return the quality metric of that name.

    Raises:
        UnknownName: there is no such metric; the message names the closest one.
    """
    available = {key: metric for key, metric in all_metrics().items() if issubclass(metric, Quality)}
    return available[choose(name, available, what="the metric")]()
