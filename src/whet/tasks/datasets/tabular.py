"""A task from the user's own data: files or tables in memory with a column of text and a column of labels.

The classes are the distinct labels of the training data, or of the dev data where there is no other, numbers in their
order and others as text; if the metric is a correlation, the labels are scores. Each file is read once. Labels are not
read where nothing asks for them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task, split_official
from whet.tasks.data import Examples
from whet.tasks.files import listed, read_table
from whet.tasks.frames import Frame, Source
from whet.tasks.kinds.base import TaskKind, kind_named, kind_of_metric
from whet.tasks.pairing import in_order, look_alikes
from whet.tasks.splits import ResplitTask

__all__ = ["Tabular"]


@dataclass(frozen=True, kw_only=True)
class Tabular(Task):
    """Sentences or pairs of sentences with their labels, from files or tables in memory."""

    name: str = field(default="tabular", init=False)
    """Always tabular."""
    train_file: Source | None = None
    """The examples for training; measuring needs none."""
    dev_file: Source | None = None
    """The examples for the final measurement; fine-tuning and compression need none."""
    text: str
    """Name of the column of the sentences."""
    text_pair: str | None = None
    """Name of the column of the second sentences, or None."""
    label: str = "label"
    """Name of the column of the classes or scores."""
    metric: str | None = None
    """Name of a quality metric; accuracy if None. With pearson or spearman, the labels are scores."""

    names: ClassVar[tuple[str, ...]] = ()
    file_kinds: ClassVar[tuple[str, ...]] = ("classification", "regression")

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """See `Task.label_names`."""
        return self._classes if self.kind.has_classes else None

    @property
    def ordered(self) -> bool:
        """See `Task.ordered`; the classes of a table in memory may have numbers."""
        return self._numbered_classes is not None

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`; the metric tells it, if the user does not."""
        return kind_of_metric(self.metric) if self.read_for is None else kind_named(self.read_for)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return (self.metric or next(iter(self.kind.metrics), "accuracy"),)

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Task.files`."""
        return tuple(source for source in (self.train_file, self.dev_file) if isinstance(source, Path))

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        if self.metric == "f1" and self.positive is None and len(self._classes) > 2:
            raise InvalidData(
                f"f1 must score two classes, but got {len(self._classes)} in {self._first}; give metric=macro_f1, "
                "or --positive with the class that it scores"
            )
        first = self._examples(self._first_columns, self._first)
        if self.train_file is None:
            return self._no_examples(), first
        if self.dev_file is None:
            return first, self._no_examples()
        return first, self._examples(self._columns(self.dev_file), self.dev_file)

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; the labels of the texts are NaN."""
        if self.train_file is None:
            raise InvalidData("--train-file must be given, but got --dev-file alone; add it")
        columns = _read(self.train_file, self._text_columns)
        texts = columns[self.text]
        train = Examples(texts, [math.nan] * len(texts), None if self.text_pair is None else columns[self.text_pair])
        return ResplitTask(name=self.name, whole=self, own=split_official(train, self._no_examples()))

    @property
    def _text_columns(self) -> list[str]:
        return [column for column in (self.text, self.text_pair) if column is not None]

    @property
    def _first(self) -> Source:
        """What the classes are read from: the training examples, or the others where there are none."""
        source = self.dev_file if self.train_file is None else self.train_file
        assert source is not None
        return source

    @cached_property
    def _first_columns(self) -> Mapping[str, list[str]]:
        return self._columns(self._first)

    @property
    def _numbered_classes(self) -> tuple[str, ...] | None:
        return self._first.class_names(self.label) if isinstance(self._first, Frame) else None

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        if self._numbered_classes is not None:
            return self._numbered_classes
        classes = in_order(self._first_columns[self.label])
        if alike := look_alikes(classes):
            self.say_once("spelling", f"labels that are spelled differently are different classes: {listed(alike)}")
        if self.positive in classes and len(classes) == 2:
            # class 1 of a model that is trained on these labels is then the positive one
            return tuple(sorted(classes, key=lambda name: name == self.positive))
        return classes

    def _columns(self, source: Source) -> Mapping[str, list[str]]:
        return _read(source, [*self._text_columns, self.label])

    def _no_examples(self) -> Examples:
        return Examples([], [], None if self.text_pair is None else [])

    def _examples(self, columns: Mapping[str, list[str]], source: Source) -> Examples:
        labels = self.kind.read_labels(columns[self.label], self.label_names, source=str(source))
        return Examples(columns[self.text], labels, None if self.text_pair is None else columns[self.text_pair])


def _read(source: Source, columns: list[str]) -> Mapping[str, list[str]]:
    return source.read(columns) if isinstance(source, Frame) else read_table(source, columns)
