"""A task: the sentences that a model must still be right about, their labels, and how being right is scored.

Three disjoint splits. `train` and `validation` are both cut from the official training data, always in the same way, so
that fine-tuning and every later choice agree on what was never trained on; `dev` is for the final measurement only.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from whet.errors import InvalidData
from whet.tasks.data import Examples
from whet.tasks.files import read_table
from whet.utils.lookup import by_name, choose, members

__all__ = ["Splits", "Task", "local_folder", "read_hub", "task_from_files", "task_named", "task_names", "texts_from"]

PACKAGE = "whet.tasks.datasets"
"""Where our own tasks lie; installed packages add theirs by the entry points `whet.datasets`."""
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
    """For the final measurement only; empty where a user has given none."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Where examples come from and how answers are scored."""

    name: str
    """One of the class's names."""
    data_dir: Path | None = None
    """Folder with local files; None reads the hub, or generates."""

    names: ClassVar[tuple[str, ...]]
    """The task names that this class serves."""
    reads_files: ClassVar[bool] = False
    """Whether this is the class that `task_from_files` makes."""
    group_size: ClassVar[int] = 1
    """So many examples in a row belong together, and stay in one split."""

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
        """Return the official training examples and the examples for the final measurement, which may be none.

        Raises:
            InvalidData: files are missing or cannot be used.
        """

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Return the tokenizer of a task whose language is its own; None for the others."""
        return None

    @cached_property
    def splits(self) -> Splits:
        """The task's three splits, checked.

        Raises:
            InvalidData: files are missing or cannot be used, or hold one class only.
        """
        official, dev = self.read()
        for part, examples in (("training", official), ("dev", dev)):
            given = part == "training" or len(examples) > 0
            if given and self.label_names is not None and len(set(examples.labels)) < 2:
                raise InvalidData(
                    f"the {part} data of {self.name} must hold at least two classes, but got one only; "
                    "give data with examples of every class"
                )
        groups = np.random.default_rng(0).permutation(len(official) // self.group_size)
        order = (groups[:, None] * self.group_size + np.arange(self.group_size)).ravel()
        held_out = min(VALIDATION_LIMIT, int(len(official) * VALIDATION_SHARE))
        held_out -= held_out % self.group_size
        return Splits(official.take(order[held_out:]), official.take(order[:held_out]), dev)


def local_folder(data_dir: Path, name: str, *, files: Sequence[str] = ()) -> Path:
    """Return the folder of a data set below `data_dir`, or `data_dir` itself.

    Args:
        data_dir: what the user gave.
        name: the folder's name, or its path such as glue/CoLA; of a path, the last part alone will do.
        files: if `data_dir` holds all of these, it is the folder, whatever its name.

    Raises:
        InvalidData: there is no such folder.
    """
    parts = Path(name).parts
    candidates = [data_dir.joinpath(*parts[start:]) for start in reversed(range(len(parts)))]
    if data_dir.resolve().name == parts[-1] or (files and all((data_dir / file).is_file() for file in files)):
        candidates.insert(0, data_dir)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InvalidData(f"--data-dir must hold a folder {parts[-1]}, but {data_dir} does not; give the folder above it")


def read_hub(path: str, split: str, *, name: str | None = None) -> Any:
    """Return one split of a data set on the Hugging Face hub.

    Raises:
        InvalidData: the hub or the data set cannot be reached.
    """
    import datasets  # slow to import, and needless for local files

    try:
        return datasets.load_dataset(path, name, split=split)
    except (OSError, ValueError) as error:
        raise InvalidData(f"{path} must be reachable on the hub, but it is not: {error}; or give --data-dir") from error


def task_names() -> tuple[str, ...]:
    """Return every task name that can be given on the command line."""
    return tuple(_all_tasks())


def task_named(name: str, *, data_dir: str | Path | None = None) -> Task:
    """Return the task of that name.

    Args:
        name: such as glue/mrpc.
        data_dir: folder with its local files; without it, the hub.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known = _all_tasks()
    return known[choose(name, known, what="the task")](name=name, data_dir=None if data_dir is None else Path(data_dir))


def _all_tasks() -> dict[str, type[Task]]:
    """Every task by name, those of installed packages too, which raise InvalidPlugin where they cannot be used."""
    return by_name(members(PACKAGE, Task, group="whet.datasets"), lambda task: task.names)


def texts_from(path: Path, *, text: str, text_pair: str | None = None) -> Examples:
    """Return the texts of a file of any format of `whet.table.FORMATS`, with a label of 0 each.

    Args:
        path: the file; its other columns are not read.
        text: the column of the sentences.
        text_pair: the column of the second sentences, if there is one.

    Raises:
        InvalidData: the file cannot be read, or lacks a column.
    """
    columns = read_table(path, [column for column in (text, text_pair) if column])
    return Examples(columns[text], [0] * len(columns[text]), columns[text_pair] if text_pair else None)


def task_from_files(
    train_file: Path,
    dev_file: Path | None = None,
    *,
    text: str,
    text_pair: str | None = None,
    label: str = "label",
    metric: str | None = None,
) -> Task:
    """Return the task that a user's own files make; they are read when its labels or splits are asked for.

    Args:
        train_file: examples for training, in any format of `whet.table.FORMATS`.
        dev_file: examples for the final measurement, with the same columns; without it, nothing can be measured.
        text: the column of the sentences.
        text_pair: the column of the second sentences, if the task has them.
        label: the column of the classes or scores.
        metric: name of a quality metric; accuracy if None. With pearson or spearman, the labels are scores.
    """
    from_files: Any = next(task for task in members(PACKAGE, Task) if task.reads_files)
    task: Task = from_files(
        train_file=train_file, dev_file=dev_file, text=text, text_pair=text_pair, label=label, metric=metric
    )
    return task
