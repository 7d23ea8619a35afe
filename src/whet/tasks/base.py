"""The base of tasks: labelled examples in three disjoint splits, and the metrics that score predictions on them.

`train` and `validation` are both cut from the official training data, always in the same way, so that fine-tuning and
every later choice agree on the examples that were never trained on. `dev` serves the final measurement only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.data import Examples
from whet.tasks.files import listed, read_table
from whet.tasks.kinds.base import TaskKind, kind_of_labels
from whet.tasks.pairing import Pairing, PositiveClass
from whet.utils.distributed import is_first
from whet.utils.inputs import require_folder
from whet.utils.lookup import by_name, choose, members
from whet.utils.progress import note

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Splits",
    "Task",
    "drawn_apart",
    "hub_dataset",
    "local_folder",
    "read_hub",
    "split_official",
    "task_named",
    "task_names",
    "text_map",
    "texts_from",
]

SomeExamples = TypeVar("SomeExamples", bound=Examples)
PACKAGE = "whet.tasks.datasets"
"""Where our own tasks lie; installed packages add theirs by the entry points `whet.datasets`."""
VALIDATION_SHARE = 0.05
"""Fraction of the official training data that is held out for choices."""
VALIDATION_LIMIT = 1000
"""Largest number of examples that are held out."""


class Splits(NamedTuple):
    """The three disjoint parts of a task's data."""

    train: Examples
    """Examples for training and calibration."""
    validation: Examples
    """Examples held out of the official training data, for choices such as early stopping or a search."""
    dev: Examples
    """Examples for the final measurement only; empty if the user gives none."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """The source of labelled examples, and the metrics that score predictions on them."""

    name: str
    """Name of the task, one of `names`."""
    data_dir: Path | None = None
    """Folder with local files; None reads the hub, or generates the data."""
    label_map: tuple[tuple[str, str], ...] = ()
    """The class of the model for each label, from the user, where names do not tell."""
    positive: str | None = None
    """The class that f1 scores, from the user; see `positive_class`."""
    read_for: str | None = None
    """Name of the kind that data are read for, where they serve several and the user or the model says which."""

    read_as: Callable[..., "Task"] | None = field(default=None, compare=False, repr=False)
    """Reads own data again for another `kind`, where neither the user nor a file says theirs: the model does."""

    names: ClassVar[tuple[str, ...]]
    """Names of the tasks that this class serves."""
    file_kinds: ClassVar[tuple[str, ...]] = ()
    """Names of the kinds of which `task_from_files` makes tasks of this class."""
    own_metrics: ClassVar[tuple[str, ...]] = ()
    """Of own data, the metrics that a user may ask for, the usual one first; those of the kind if empty."""
    file_endings: ClassVar[tuple[str, ...]] = ()
    """Endings of files that tell these kinds by themselves."""
    group_size: ClassVar[int] = 1
    """Number of consecutive examples that belong together and stay in one split."""
    serves: ClassVar[tuple[str, ...]] = ()
    """Names of other kinds that the same data can be read for."""
    generated: ClassVar[bool] = False
    """Whether the data are generated, so that no folder has them."""
    hub_name: ClassVar[str | None] = None
    """Name of the data set on the hub; None if it is not there."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a folder that nothing is read from."""
        if self.generated and self.data_dir is not None:
            raise InvalidParameter(
                f"--data-dir must go with a task that has files, but {self.name} is generated, and got "
                f"{self.data_dir}; leave it out"
            )

    @property
    @abstractmethod
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the classes in order, or None if labels are scores."""

    @property
    def kind(self) -> TaskKind:
        """What the outputs of a head for this task mean."""
        return kind_of_labels(self.label_names)

    def for_kind(self, kind: TaskKind) -> "Task":
        """Return the task as a model of a kind answers it.

        Raises:
            InvalidData: it asks for another kind of answers.
        """
        if self.kind.name() == kind.name():
            return self
        if self.read_as is not None:
            return self.read_as(kind=kind.name())
        if kind.name() in self.serves:
            return replace(self, read_for=kind.name())
        asks = f"{self.name} asks" if self.names else "your data ask"
        tunable = kind.pretrained and not self.kind.pretrained
        remedy = "fine-tune it first: whet finetune, or" if tunable else "give another model, or"
        data = (
            f"--kind {kind.name()} if its labels are such" if kind.name() in self.file_kinds else "data that it answers"
        )
        raise InvalidData(
            f"the model must be {self.kind.holds}, as {asks}, but it is {kind.holds}; {remedy} give {data}"
        )

    @property
    def ordered(self) -> bool:
        """Whether the order of `label_names` is one that models are trained in, as that of published data."""
        return True

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the quality metrics; the main metric comes first."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that the data are read from, which no output may replace."""
        return () if self.data_dir is None else (self.data_dir,)

    @abstractmethod
    def read(self) -> tuple[Examples, Examples]:
        """Return the official training examples and the examples for the final measurement, which may be empty.

        Raises:
            InvalidData: a file is missing or cannot be read.
        """

    def tokenizer(self) -> "PreTrainedTokenizerBase | None":
        """Return the tokenizer of a task with an artificial language, or None."""
        return None

    def pairing(self, head: Mapping[int, str]) -> Pairing:
        """Return the output of a model's head for each of the task's outputs; see `whet.tasks.pairing`.

        Args:
            head: the names of the outputs, `id2label` in the model's configuration.

        Raises:
            InvalidData: the head has other classes, or nothing tells which is which.
            InvalidParameter: the label map does not fit.
        """
        return self.kind.pairing(head, self.label_names, ordered=self.ordered, label_map=dict(self.label_map))

    def positive_class(self, order: Sequence[int]) -> PositiveClass | None:
        """Return the class that f1 scores: the user's, class 1 of published data, or else class 1 of the model.

        Args:
            order: the model's output for each of the task's classes.

        Raises:
            InvalidParameter: the user's class is none of the task's.
        """
        names = self.label_names
        if names is None or len(names) < 2:
            return None
        if self.positive is not None:
            if self.positive not in names:
                raise InvalidParameter(
                    f"--positive must be a class of the task, {listed(names)}, but got {self.positive}; correct it"
                )
            return PositiveClass(names.index(self.positive), self.positive)
        index = 1 if self.ordered else list(order).index(1)
        return PositiveClass(index, names[index]) if index < len(names) else None

    def unlabeled(self) -> "Task":
        """Return the same texts for what reads no labels; where labels are missing, they are not asked for."""
        return self

    def more_text(self, path: Path, *, text: str, text_pair: str | None = None) -> Examples:
        """Return the texts of a file in the form of the task's examples, with labels that nothing must read.

        Args:
            path: the file.
            text: name of the column of the sentences.
            text_pair: name of the column of the second sentences; `text_pair` if None and the task has pairs.

        Raises:
            InvalidData: the file cannot be read, or lacks a column.
        """
        pairs = self.splits.train.pairs is not None
        return texts_from(path, text=text, text_pair=(text_pair or "text_pair") if pairs else None)

    def say_once(self, about: str, sentence: str) -> None:
        """Tell the user something about the data on the error stream.

        Args:
            about: what it is about; of several sentences about the same, the first is said.
            sentence: what to say; nothing if it is empty.
        """
        if sentence and about not in self._said and is_first():
            self._said.add(about)
            note(sentence)

    @cached_property
    def _said(self) -> set[str]:
        return set()

    @cached_property
    def splits(self) -> Splits:
        """The task's three splits, after a check of their labels.

        Raises:
            InvalidData: a file is missing or cannot be read, or a split has a single class.
        """
        official, dev = self.read()
        for split, examples in (("training", official), ("dev", dev)):
            if len(examples) or (split == "training" and not len(dev)):
                self.kind.check_labels(examples.labels, source=f"{split} data of {self.name}")
        return split_official(official, dev, group_size=self.group_size)


def split_official(official: Examples, dev: Examples, *, group_size: int = 1) -> Splits:
    """Return the splits of a task, of which validation is held out of the official training data.

    Args:
        official: the official training data.
        dev: the examples for the final measurement.
        group_size: number of consecutive examples that stay in one split.
    """
    held_out = min(VALIDATION_LIMIT, int(len(official) * VALIDATION_SHARE))
    train, validation = drawn_apart(official, held_out - held_out % group_size, group_size=group_size)
    return Splits(train, validation, dev)


def drawn_apart(examples: SomeExamples, count: int, *, group_size: int = 1) -> tuple[SomeExamples, SomeExamples]:
    """Return examples in two parts that share no group, in random order, always the same: the rest, and those drawn.

    Args:
        examples: all of them.
        count: how many are drawn; a few more if the last group is larger, but never all.
        group_size: number of consecutive examples that stay in one part.
    """
    groups = examples.groups(group_size)
    order = [groups[i] for i in np.random.default_rng(0).permutation(len(groups))]
    ends = np.cumsum([len(group) for group in order])
    cut = min(int(np.searchsorted(ends, count)) + 1, len(order) - 1) if count else 0
    rest, drawn = (list(chain.from_iterable(part)) for part in (order[cut:], order[:cut]))
    return examples.take(rest), examples.take(drawn)


def local_folder(data_dir: Path, name: str, *, files: Sequence[str] = ()) -> Path:
    """Return the folder of a data set, which is below `data_dir` or `data_dir` itself.

    Args:
        data_dir: the folder that the user gives.
        name: the folder's name, or its path such as glue/CoLA, of which any last parts may lie in `data_dir`.
        files: if `data_dir` holds all of these files, it is the folder, whatever its name.

    Raises:
        InvalidData: there is no such folder.
    """
    require_folder(data_dir, what="--data-dir", error=InvalidData)
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

    Args:
        path: the data set on the hub, such as nyu-mll/glue.
        split: name of the split, such as train.
        name: name of the configuration, such as mrpc.

    Raises:
        InvalidData: the hub or the data set cannot be reached.
    """
    import datasets  # slow to import, and not needed for local files

    try:
        return datasets.load_dataset(path, name, split=split)
    except (OSError, ValueError) as error:
        raise InvalidData(
            f"{path} must be reachable on the hub, but got {error}; check the connection, or give --data-dir"
        ) from error


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return tuple(_all_tasks())


def task_named(
    name: str,
    *,
    data_dir: str | Path | None = None,
    label_map: Mapping[str | int, str | int] | None = None,
    positive: str | None = None,
) -> Task:
    """Return the task with a name.

    Args:
        name: name of the task, such as glue/mrpc.
        data_dir: folder with local files; None reads the hub, or generates the data.
        label_map: the class of the model for each label, by its name or number, where names do not tell.
        positive: the class that f1 scores; class 1 if None.

    Raises:
        UnknownName: there is no such task; the message gives the nearest name.
    """
    tasks = _all_tasks()
    return tasks[choose(name, tasks, what="the task")](
        name=name,
        data_dir=None if data_dir is None else Path(data_dir),
        label_map=text_map(label_map),
        positive=positive,
    )


def hub_dataset(name: str) -> str | None:
    """Return the name on the hub of a task's data, or None if the task is unknown here or its data are not there."""
    task = _all_tasks().get(name)
    return None if task is None else task.hub_name


def _all_tasks() -> dict[str, type[Task]]:
    """Return every task class by task name, including those of installed packages.

    Raises:
        InvalidPlugin: the tasks of an installed package cannot be used.
    """
    return by_name(members(PACKAGE, Task, group="whet.datasets"), lambda task: task.names)


def texts_from(path: Path, *, text: str, text_pair: str | None = None) -> Examples:
    """Return the texts of a file, each with the label 0.

    Args:
        path: the file, in any format of `whet.tasks.files.FORMATS`; other columns are not read.
        text: name of the column of the sentences.
        text_pair: name of the column of the second sentences, or None.

    Raises:
        InvalidData: the file cannot be read, or lacks a column.
    """
    columns = read_table(path, [column for column in (text, text_pair) if column is not None])
    return Examples(columns[text], [0] * len(columns[text]), None if text_pair is None else columns[text_pair])


def text_map(label_map: Mapping[str | int, str | int] | None) -> tuple[tuple[str, str], ...]:
    """Return a label map as a task keeps it: pairs of texts."""
    return tuple((str(label), str(given)) for label, given in (label_map or {}).items())
