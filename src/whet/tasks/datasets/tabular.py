"""A task from the user's own files: CSV, TSV, JSONL or Parquet with a column of text and a column of labels.

The classes are the distinct labels of the training file, in sorted order; if the metric is a correlation, the labels
are scores. Each file is read once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.files import read_table
from whet.tasks.kinds.base import TaskKind, kind_of_metric

__all__ = ["Tabular"]


@dataclass(frozen=True, kw_only=True)
class Tabular(Task):
    """Sentences or pairs of sentences with their labels, from files."""

    name: str = field(default="tabular", init=False)
    """Always tabular."""
    train_file: Path
    """File with the examples for training."""
    dev_file: Path | None = None
    """File with the examples for the final measurement; fine-tuning and compression need none."""
    text: str
    """Name of the column of the sentences."""
    text_pair: str | None = None
    """Name of the column of the second sentences, or None."""
    label: str = "label"
    """Name of the column of the classes or scores."""
    metric: str | None = None
    """Name of a quality metric; accuracy if None. With pearson or spearman, the labels are scores."""

    names: ClassVar[tuple[str, ...]] = ()
    reads_files: ClassVar[bool] = True

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """See `Task.label_names`."""
        return self._classes if self.kind.has_classes else None

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`; the metric tells."""
        return kind_of_metric(self.metric)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return (self.metric or "accuracy",)

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Task.files`."""
        return (self.train_file,) if self.dev_file is None else (self.train_file, self.dev_file)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        if self.metric == "f1" and len(self._classes) > 2:
            raise InvalidData(
                f"f1 must score two classes, but got {len(self._classes)} in {self.train_file}; give metric=macro_f1"
            )
        train = self._examples(self._train_columns, self.train_file)
        if self.dev_file is None:
            return train, Examples([], [], [] if self.text_pair else None)
        return train, self._examples(self._columns(self.dev_file), self.dev_file)

    @cached_property
    def _train_columns(self) -> Mapping[str, list[str]]:
        return self._columns(self.train_file)

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._train_columns[self.label])))

    def _columns(self, path: Path) -> Mapping[str, list[str]]:
        return read_table(path, [column for column in (self.text, self.text_pair, self.label) if column is not None])

    def _examples(self, columns: Mapping[str, list[str]], path: Path) -> Examples:
        labels = self.kind.read_labels(columns[self.label], self.label_names, source=path)
        return Examples(columns[self.text], labels, None if self.text_pair is None else columns[self.text_pair])
