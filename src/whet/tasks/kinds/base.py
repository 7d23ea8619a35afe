"""A kind of task: what the outputs of a model's head mean, and all that follows from it.

Everything that depends on whether a head answers with classes or with a score asks the kind: the names and the order of
its outputs, labels in files, predictions, divergences, Fisher noise, and losses. A new kind is one more module here, or
an entry point `whet.task_kinds` of an installed package.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from whet.tasks.pairing import Pairing
from whet.utils.lookup import by_name, member_name, members

__all__ = [
    "Labels",
    "TaskKind",
    "all_kinds",
    "kind_of_head",
    "kind_of_labels",
    "kind_of_metric",
    "kl_divergences",
    "random_signs",
]

Array = np.ndarray[Any, Any]
Labels = list[int] | list[float]
"""Class indices into the task's label names, or scores."""

PACKAGE = "whet.tasks.kinds"
"""Where our own kinds lie; installed packages add theirs by the entry points `whet.task_kinds`."""


class TaskKind(ABC):
    """What the outputs of a head mean; it has no state."""

    problem_type: ClassVar[str]
    """The name of the kind in the configurations of transformers."""
    pipeline_tag: ClassVar[str] = "text-classification"
    """The name of the kind's pipeline in transformers and on the hub."""
    has_classes: ClassVar[bool]
    """Whether predictions are classes, so that two predictions agree or disagree."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the quality metrics that no other kind has."""

    @classmethod
    def name(cls) -> str:
        """Return the kind's name, such as `classification`; see `member_name`."""
        return member_name(cls, PACKAGE)

    @abstractmethod
    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """Return whether a task with these label names, None if it has none, is of this kind."""

    @abstractmethod
    def fits_head(self, outputs: int) -> bool:
        """Return whether a head with this number of outputs is of this kind."""

    @abstractmethod
    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """Return the name of every output of a head for a task with these label names."""

    @abstractmethod
    def label_names(self, head: Mapping[int, str]) -> tuple[str, ...] | None:
        """Return the label names of the task that a head with these output names answers."""

    @abstractmethod
    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """Return the output of a head for each of the task's outputs.

        Args:
            head: the names of the outputs, `id2label` in the model's configuration.
            label_names: names of the task's classes, if it has any.
            ordered: whether the order of the classes is one that models are trained in, as that of published data.
            label_map: the output for each class by its name or number, from the user; empty if none is given.

        Raises:
            InvalidData: the head has another number of outputs, or nothing tells which is which.
            InvalidParameter: the user's pairing does not fit the classes or the head.
        """

    @abstractmethod
    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> Labels:
        """Return a column of labels as class indices or scores.

        Args:
            raw: one label per row, as spelled in the file.
            label_names: all labels that may occur, in the order of the classes, if there are classes.
            source: the source of the labels, for the error message.

        Raises:
            InvalidData: a label is not valid.
        """

    def check_labels(self, labels: Sequence[float], *, source: str) -> None:
        """Refuse labels from which nothing can be learned.

        Args:
            labels: class indices or scores.
            source: the source of the labels, for the error message.

        Raises:
            InvalidData: they are of a single class.
        """
        return

    @abstractmethod
    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> Labels:
        """Return labels in the numbering of a model, from `class_order`."""

    @abstractmethod
    def predictions(self, logits: Array) -> Array:
        """Return (examples,) predictions from (examples, outputs) logits."""

    @abstractmethod
    def divergence(self, baseline: Array, model: Array) -> Array:
        """Return (examples,) KL(baseline ‖ model) in nats, from (examples, outputs) logits."""

    @abstractmethod
    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """Return noise with the covariance that is the curvature of the divergence in the logits.

        Args:
            logits: (..., outputs).
            signs: independent random signs of the same shape.
        """

    @abstractmethod
    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """Return logits at a temperature, in their own shape."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of (examples, outputs) logits against (examples,) labels, a scalar."""

    @abstractmethod
    def distillation_loss(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the mean divergence of softened predictions from the teacher's, times temperature², a scalar.

        Args:
            student: (..., outputs) logits.
            teacher: logits of the same shape.
            temperature: above 0.
        """


@cache
def all_kinds() -> dict[str, TaskKind]:
    """Return every kind of task by name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    classes: tuple[type[TaskKind], ...] = members(PACKAGE, TaskKind, group="whet.task_kinds")
    return {name: kind() for name, kind in by_name(classes, lambda kind: (kind.name(),)).items()}


@cache
def kind_of_head(outputs: int) -> TaskKind:
    """Return the kind that a head with this number of outputs is of, as far as the number tells."""
    return next(kind for kind in all_kinds().values() if kind.fits_head(outputs))


def kind_of_labels(label_names: Sequence[str] | None) -> TaskKind:
    """Return the kind that a task with these label names, None if it has none, is of."""
    return next(kind for kind in all_kinds().values() if kind.fits_labels(label_names))


def kind_of_metric(metric: str | None) -> TaskKind:
    """Return the kind that alone has a quality metric; classification if no kind has it alone."""
    kinds = all_kinds()
    return next((kind for kind in kinds.values() if metric in kind.metrics), kinds["classification"])


def kl_divergences(baseline: Array, model: Array) -> Array:
    """Return (examples,) KL(baseline ‖ model) in nats, from (examples, outputs) logits."""
    return kind_of_head(baseline.shape[1]).divergence(baseline, model)


def random_signs(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs shaped like `logits`, from a CPU generator."""
    return torch.randint(0, 2, logits.shape, generator=generator).to(logits) * 2 - 1
