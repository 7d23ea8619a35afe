"""A kind of task: what the outputs of a model's head mean, and all that follows from it.

Everything that depends on whether a head answers with classes or with a score asks the kind: the names and the order of
its outputs, labels in files, predictions, divergences, Fisher noise, and losses. A new kind is one more module here, or
an entry point `whet.task_kinds` of an installed package.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from whet.errors import InvalidData, InvalidModel, InvalidParameter
from whet.numerics.stacking import equally_wide
from whet.tasks.data import Batch, Batches
from whet.tasks.pairing import Pairing
from whet.utils.lookup import by_name, choose, member_name, members

__all__ = [
    "NO_HEAD",
    "TEXT_HEAD",
    "Answers",
    "Head",
    "Labels",
    "LogitRows",
    "TaskKind",
    "all_kinds",
    "kind_named",
    "kind_of_head",
    "kind_of_labels",
    "kind_of_metric",
    "kinds_of_head",
]

Array = np.ndarray[Any, Any]
Labels = list[Any]
"""One per example, such as class indices into the task's label names, or scores."""

PACKAGE = "whet.tasks.kinds"
"""Where our own kinds lie; installed packages add theirs by the entry points `whet.task_kinds`."""


TEXT_HEAD = "ForSequenceClassification"
"""How the names of classes end that give one row of logits a text."""


NO_HEAD = "without a head"
"""Stands for the name of a class that gives hidden states, of which modules of sentence-transformers make answers."""


class Head(NamedTuple):
    """What tells of which kind a head is."""

    name: str
    """The name of the model's class."""
    outputs: int | None = None
    """Number of outputs, if the configuration says it."""
    problem_type: str | None = None
    """What the configuration says of the problem, if anything."""
    said: str | None = None
    """The name of the kind, where the configuration or the user says it."""


class LogitRows(NamedTuple):
    """The answers to one batch, as a model gives them."""

    logits: Tensor
    """(rows, outputs)."""
    inputs: Tensor
    """(rows,) int64: the input of the batch that each row answers, rising."""


class TaskKind(ABC):
    """What the outputs of a head mean; what it must know of a model is fixed, see `configured`."""

    problem_type: ClassVar[str | None] = None
    """The name of the kind in the configurations of transformers, for heads that may be of several kinds."""
    pipeline_tag: ClassVar[str] = "text-classification"
    """The name of the kind's pipeline in transformers and on the hub."""
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """The name of the class of transformers that loads models of the kind."""
    heads: ClassVar[tuple[str, ...]] = (TEXT_HEAD,)
    """How the names of model classes with such a head end."""
    holds: ClassVar[str]
    """A model of the kind in words, such as "a text classifier"."""
    gives: ClassVar[str]
    """What a model of the kind gives, in words, such as "classes"."""
    has_classes: ClassVar[bool] = False
    """Whether the head has an output for each class of the task."""
    several_labels: ClassVar[bool] = False
    """Whether an example may have any number of labels; files hold their names."""
    has_labels: ClassVar[bool] = True
    """Whether labels say what a model should answer; what a vector should be, only a teacher says."""
    pretrained: ClassVar[bool] = False
    """Whether pretraining makes models of the kind, which are bases for others, and no fine-tuning by whet."""
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    """The names of what an export gives, which `rows` reads as fields of a model's outputs."""
    not_in_exports: ClassVar[str] = ""
    """What users of such models may expect of an export, and do not get, in a sentence."""
    sentence_model: ClassVar[str | None] = None
    """What sentence-transformers calls a model of the kind where the class of the model does not tell it."""
    one_row: ClassVar[bool] = True
    """Whether each input is answered by one row, with an output for each of the head's."""
    own_loss: ClassVar[bool] = True
    """Whether models of the kind compute its loss themselves, from labels among their inputs."""
    absent: ClassVar[float | None] = None
    """What stands for an output that a model lacks and another has; None for the least number, of probability 0."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the quality metrics that no other kind has."""

    @classmethod
    def name(cls) -> str:
        """Return the kind's name, such as `classification`; see `member_name`."""
        return member_name(cls, PACKAGE)

    def mark(self, config: Any, settings: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Enter into a configuration what tells others of the kind; `settings` are those of sentence-transformers."""
        return

    def configured(self, config: Any) -> "TaskKind":
        """Return the kind of a model of this configuration; itself, where all models of the kind answer alike."""
        return self

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """Return whether label names alone, None if a task has none, tell that it is of this kind."""
        return False

    @abstractmethod
    def fits_head(self, head: Head) -> bool:
        """Return whether, among kinds with equal `heads`, a head may be of this kind."""

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """Return the name of every output of a head for a task with these label names; none if they have no names."""
        return ()

    def label_names(self, head: Mapping[int, str]) -> tuple[str, ...] | None:
        """Return the label names of the task that a head with these output names answers, if it has classes."""
        return None

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """Return the output of a head for each of the task's outputs; outputs without classes stay as they are.

        Args:
            head: the names of the outputs, `id2label` in the model's configuration.
            label_names: names of the task's classes, if it has any.
            ordered: whether the order of the classes is one that models are trained in, as that of published data.
            label_map: the output for each class by its name or number, from the user; empty if none is given.

        Raises:
            InvalidData: the head has another number of outputs, or nothing tells which is which.
            InvalidParameter: the user's pairing does not fit the classes or the head.
        """
        names = self.output_names(label_names)
        if names and len(head) != len(names):
            raise InvalidData(
                f"the model's head must give {self.gives}, but got num_labels={len(head)}; fine-tune it on this task, "
                "or name the right task or column"
            )
        if label_map:
            raise InvalidParameter(f"--label-map must go with classes, but the model gives {self.gives}; leave it out")
        return Pairing([])

    @abstractmethod
    def read_labels(self, raw: Sequence[Any], label_names: Sequence[str] | None, *, source: Path | str) -> Labels:
        """Return a column of labels as class indices or scores.

        Args:
            raw: one label per row, as spelled in the file; or the names of several.
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

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> Labels:
        """Return labels in the numbering of a model, from `class_order`; other labels than classes have none."""
        return list(labels)

    def rows(self, outputs: Any, batch: Batch) -> LogitRows:
        """Return what a model answers to a batch; one row for each input, if a kind does not say otherwise.

        Args:
            outputs: what the model gives, as transformers has it.
            batch: with ANSWERED, where only some tokens count.
        """
        logits: Tensor = outputs.logits
        return LogitRows(logits, torch.arange(len(logits), device=logits.device))

    def scores(self, rows: LogitRows, batch: Batch) -> Tensor | None:
        """Return sums over the rows of each input, (inputs, k), if predictions need no more; None if they read rows.

        Where they need no more, the rows of a split need not fit into memory.

        Args:
            rows: the answers to a batch.
            batch: the batch, on their device.
        """
        return None

    def exported(self, outputs: Any, batch: Batch) -> tuple[Tensor, ...]:
        """Return what an export gives, in the order of `outputs`; it is traced.

        Args:
            outputs: what the model gives, as transformers has it.
            batch: what the model reads.
        """
        return tuple(getattr(outputs, name) for name in self.outputs)

    @abstractmethod
    def predictions(self, answers: "Answers", batches: Batches) -> Array:
        """Return (examples,) predictions, maybe objects, as the kind's metrics read them.

        Args:
            answers: to all inputs of the batches.
            batches: the examples.
        """

    @abstractmethod
    def divergence(self, baseline: Array, model: Array) -> Array:
        """Return (rows,) KL(baseline ‖ model) in nats, from (rows, outputs) logits."""

    @abstractmethod
    def decisions(self, logits: Array) -> Array | None:
        """Return what rows decide, (rows, ...), from (rows, outputs) logits; None if they decide nothing."""

    def guesses(self, logits: Array) -> Labels:
        """Return the labels that rows of logits stand for, as those of examples, from (rows, outputs) logits.

        Texts without labels get those that their teacher would give them.
        """
        decided = self.decisions(logits)
        guessed: Labels = (logits[:, 0] if decided is None else decided).tolist()
        return guessed

    @abstractmethod
    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """Return noise with the covariance that is the curvature of the divergence in the logits.

        Args:
            logits: (..., outputs).
            signs: independent random signs of the same shape.
        """

    def random_signs(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return random signs shaped like the (rows, outputs) logits of one input, from a CPU generator.

        Padding must not change those of the real tokens, wherever a kind has rows or outputs for tokens.
        """
        return torch.randint(0, 2, logits.shape, generator=generator).to(logits) * 2 - 1

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


@dataclass(frozen=True)
class Answers:
    """The answers to all batches of a split."""

    kind: TaskKind
    """What the logits mean."""
    logits: Array
    """(rows, outputs) at least float32."""
    inputs: Array
    """(rows,) the input that each row answers, in the order of the batches, rising."""
    scores: Array | None = None
    """(inputs, k) sums over all rows of each input; of a large split, only some of its rows are above."""

    def __len__(self) -> int:
        return len(self.logits)

    def ordered(self, order: Sequence[int]) -> "Answers":
        """Return the answers with their outputs in another order.

        Args:
            order: the output for each of a task's classes; empty where outputs have no classes.
        """
        return replace(self, logits=self.logits[:, list(order)]) if len(order) else self

    def divergences(self, model: "Answers") -> Array:
        """Return (rows,) KL(these ‖ the model's) in nats."""
        found: Array = self.kind.divergence(*equally_wide(self.logits, model.logits, absent=self.kind.absent))
        return found

    def disagreements(self, model: "Answers") -> Array | None:
        """Return (rows,) the share of decisions in a row that differ; None if the kind decides nothing."""
        own, others = self.kind.decisions(self.logits), self.kind.decisions(model.logits)
        if own is None or others is None:
            return None
        differ: Array = (own != others).reshape(len(own), -1).mean(1)
        return differ


@cache
def all_kinds() -> dict[str, TaskKind]:
    """Return every kind of task by name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    classes: tuple[type[TaskKind], ...] = members(PACKAGE, TaskKind, group="whet.task_kinds")
    return {name: kind() for name, kind in by_name(classes, lambda kind: (kind.name(),)).items()}


def kind_named(name: str) -> TaskKind:
    """Return the kind of that name.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    kinds = all_kinds()
    return kinds[choose(name, kinds, what="the kind")]


def kind_of_head(head: Head) -> TaskKind:
    """Return the kind of a head; where several fit, the first.

    Raises:
        InvalidModel: there is no such kind.
    """
    fitting = kinds_of_head(head)
    if fitting:
        return fitting[0]
    raise InvalidModel(
        f"the head of a model must be of a kind that whet knows, but got {head.name} with {head.outputs} outputs and "
        f"problem_type={head.problem_type!r:.40}; the kinds are {', '.join(all_kinds())}"
    )


def kinds_of_head(head: Head) -> tuple[TaskKind, ...]:
    """Return every kind that a head may be of: one, if the configuration or the user says which.

    A head of a class that no kind names is taken for a text classifier's.
    """
    kinds = all_kinds().values()
    longest = max((end for kind in kinds for end in kind.heads if head.name.endswith(end)), key=len, default=TEXT_HEAD)
    fitting = tuple(kind for kind in kinds if longest in kind.heads and kind.fits_head(head))
    return fitting if head.said is None else tuple(kind for kind in fitting if kind.name() == head.said)


def kind_of_labels(label_names: Sequence[str] | None) -> TaskKind:
    """Return the kind that a task with these label names, None if it has none, is of."""
    return next(kind for kind in all_kinds().values() if kind.fits_labels(label_names))


def kind_of_metric(metric: str | None) -> TaskKind:
    """Return the kind that alone has a quality metric; classification if no kind has it alone."""
    kinds = all_kinds()
    return next((kind for kind in kinds.values() if metric in kind.metrics), kinds["classification"])
