"""A task: the sentences that a model must still be right about, their labels, and how being right is scored.

Three disjoint splits. `train` and `validation` are both cut from the official training data, always in the same way, so that
fine-tuning and every later choice agree on what was never trained on; `dev` is for the final measurement only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from whet.errors import InvalidData
from whet.lookup import choose, members
from whet.resources import Examples

__all__ = ["Splits", "Task", "read_hub", "task_named", "task_names"]

VALIDATION_SHARE = 0.05
"""Share of the official training data that is held out for choices."""
VALIDATION_LIMIT = 1000
"""No more examples than this are held out."""


class Splits(NamedTuple):
    """The three disjoint parts of a task's data."""

    train: Examples
    """For training and calibration."""
    validation: Examples
    """Held out of the official training data; for choices."""
    dev: Examples
    """For the final measurement only."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Where examples come from and how answers are scored."""

    name: str
    """One of the class's names."""
    data_dir: Path | None = None
    """Folder with local files; None reads the hub, or generates."""

    names: ClassVar[tuple[str, ...]]
    """The task names that this class serves."""

    @property
    @abstractmethod
    def label_names(self) -> tuple[str, ...] | None:
        """The classes in order, or None for scores."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the one that counts first."""

    @abstractmethod
    def read(self) -> tuple[Examples, Examples]:
        """Return the official training examples and the examples for the final measurement.

        Raises:
            InvalidData: files are missing or cannot be used.
        """

    @cached_property
    def splits(self) -> Splits:
        """The task's three splits, checked.

        Raises:
            InvalidData: files are missing or cannot be used, or hold one class only.
        """
        official, dev = self.read()
        for part, examples in (("training", official), ("dev", dev)):
            if self.label_names is not None and len(set(examples.labels)) < 2:
                raise InvalidData(
                    f"the {part} data of {self.name} must hold at least two classes, but got one only"
                )
        order = np.random.default_rng(0).permutation(len(official))
        held_out = min(VALIDATION_LIMIT, int(len(official) * VALIDATION_SHARE))
        return Splits(official.take(order[held_out:]), official.take(order[:held_out]), dev)


def read_hub(path: str, split: str, *, name: str | None = None) -> Any:
    """Return one split of a data set on the Hugging Face hub.

    Raises:
        InvalidData: the hub or the data set cannot be reached.
    """
    import datasets  # slow to import, and needless for local files

    try:
        return datasets.load_dataset(path, name, split=split)
    except (OSError, ValueError) as error:
        raise InvalidData(
            f"{path} must be reachable on the hub, but it is not: {error}; or give --data-dir"
        ) from error


def task_names() -> tuple[str, ...]:
    """Return every task name that can be given on the command line."""
    return tuple(name for task in members("whet.tasks", Task) for name in task.names)  # type: ignore[type-abstract]


def task_named(name: str, *, data_dir: Path | None = None) -> Task:
    """Return the task of that name.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    choose(name, task_names(), what="the task")
    for task in members("whet.tasks", Task):  # type: ignore[type-abstract]
        if name in task.names:
            return task(name=name, data_dir=data_dir)
    raise AssertionError(name)
