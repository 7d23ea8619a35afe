"""A task from the user's own data: files or tables in memory with a column of text and a column of labels.

The classes are the distinct labels of the training data, or of the dev data where there is no other, numbers in their
order and others as text; if the metric is a correlation, the labels are scores. Several labels of a text stand in one
column, as names with a separator between or as lists, or each has a column of 0 and 1. Each file is read once. Labels
are not read where nothing asks for them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from whet.errors import InvalidData
from whet.tasks.base import Task, split_official
from whet.tasks.data import Examples
from whet.tasks.files import listed
from whet.tasks.frames import Frame, Source
from whet.tasks.kinds.base import TaskKind, kind_named, kind_of_metric
from whet.tasks.label_sets import label_sets, marked_sets
from whet.tasks.own_files import OwnFiles, read_source
from whet.tasks.pairing import in_order, look_alikes
from whet.tasks.scored_pairs import ScoredTexts
from whet.tasks.splits import ResplitTask

__all__ = ["Tabular"]


class _Columns(NamedTuple):
    """What a source holds of each example."""

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any]
    """A label each; where a text has several, their names."""


@dataclass(frozen=True, kw_only=True)
class Tabular(OwnFiles, ScoredTexts):
    """Sentences or pairs of sentences with their labels, from files or tables in memory."""

    name: str = field(default="tabular", init=False)
    """Always tabular."""
    text: str
    """Name of the column of the sentences."""
    text_pair: str | None = None
    """Name of the column of the second sentences, or None."""
    label: str | tuple[str, ...] = "label"
    """Name of the column of the classes or scores; where a text has several labels, maybe of a column for each."""
    label_separator: str = ","
    """Stands between the names of several labels in a cell."""
    metric: str | None = None
    """Name of a quality metric; the kind's first if None. With pearson or spearman, the labels are scores."""

    file_kinds: ClassVar[tuple[str, ...]] = ("classification", "regression", "multi_label")

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
        if not self.kind.several_labels:
            return (self.metric or next(iter(self.kind.metrics), "accuracy"),)
        return tuple(dict.fromkeys((self.metric or self.kind.metrics[0], *self.kind.metrics)))

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        if self.metric == "f1" and self.positive is None and len(self._classes) > 2:
            raise InvalidData(
                f"f1 must score two classes, but got {len(self._classes)} in {self._first}; give metric=macro_f1, "
                "or --positive with the class that it scores"
            )
        if self.kind.several_labels:
            self._say_of_sets(self._first_columns.labels)
        first = self._examples(self._first_columns, self._first)
        if self.train_file is None:
            return self._no_examples(), first
        if self.dev_file is None:
            return first, self._no_examples()
        return first, self._examples(self._columns(self.dev_file), self.dev_file)

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; the labels of the texts are NaN."""
        columns = read_source(self.for_training, self._text_columns)
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
    def _first_columns(self) -> _Columns:
        return self._columns(self._first)

    @property
    def _numbered_classes(self) -> tuple[str, ...] | None:
        if not isinstance(self.label, str) or not isinstance(self._first, Frame):
            return None
        return self._first.class_names(self.label)

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        if self._numbered_classes is not None:
            return self._numbered_classes
        if not isinstance(self.label, str):
            return self.label
        labels = self._first_columns.labels
        classes = in_order([name for names in labels for name in names] if self.kind.several_labels else labels)
        if not classes:
            raise InvalidData(
                f"some text must have a label, but column {self.label} of {self._first} has none; name the column with "
                "labels by --label"
            )
        if alike := look_alikes(classes):
            self.say_once("spelling", f"labels that are spelled differently are different classes: {listed(alike)}")
        if self.positive in classes and len(classes) == 2:
            # class 1 of a model that is trained on these labels is then the positive one
            return tuple(sorted(classes, key=lambda name: name == self.positive))
        return classes

    def _columns(self, source: Source) -> _Columns:
        columns = [self.label] if isinstance(self.label, str) else list(self.label)
        lists = columns if self.kind.several_labels and isinstance(self.label, str) else []
        table = read_source(source, [*self._text_columns, *columns], lists=lists)
        labels = table[columns[0]]
        if lists:
            labels = label_sets(labels, separator=self.label_separator, source=str(source))
        elif self.kind.several_labels:
            labels = marked_sets({name: table[name] for name in columns}, source=str(source))
        return _Columns(table[self.text], None if self.text_pair is None else table[self.text_pair], labels)

    def _say_of_sets(self, sets: Sequence[Sequence[str]]) -> None:
        """Tell of labels of which nothing can be learned, and of what may be another kind of labels."""
        occurring = {name for names in sets for name in names}
        if absent := [name for name in self._classes if name not in occurring]:
            self.say_once("absent", f"no text of {self._first} has the label {listed(absent)}")
        elif all(len(names) == 1 for names in sets):
            self.say_once(
                "single", "every text has exactly one label; if labels exclude each other, give --kind classification"
            )

    def _no_examples(self) -> Examples:
        return Examples([], [], None if self.text_pair is None else [])

    def _examples(self, columns: _Columns, source: Source) -> Examples:
        labels = self.kind.read_labels(columns.labels, self.label_names, source=str(source))
        return Examples(columns.texts, labels, columns.pairs)
