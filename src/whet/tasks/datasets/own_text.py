"""A task from the user's own text, for language models.

A file that ends in .txt is one running text. In a table each row of the text column is a document of its own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from whet.errors import InvalidData
from whet.tasks.base import Task, split_official
from whet.tasks.corpus import Passages, documents, running_text
from whet.tasks.data import Examples
from whet.tasks.datasets._language import READINGS, LanguageTask, running_text_of
from whet.tasks.files import read_table
from whet.tasks.frames import Frame, Source
from whet.tasks.splits import ResplitTask

__all__ = ["OwnText"]


@dataclass(frozen=True, kw_only=True)
class OwnText(LanguageTask):
    """Text from files or tables in memory."""

    name: str = field(default="tabular", init=False)
    """Always tabular, as of all own data."""
    train_file: Source | None = None
    """The text for training; measuring needs none."""
    dev_file: Source | None = None
    """The text for the final measurement; compression needs none."""
    text: str = "text"
    """Name of the column of texts in tables."""
    label: str = "label"
    """Not read: a text has no labels."""
    metric: str | None = None
    """Name of the quality metric that counts; perplexity if None."""
    stride: int | None = None
    """Tokens that each window counts in the final measurement; half of a window if None."""

    names: ClassVar[tuple[str, ...]] = ()
    file_kinds: ClassVar[tuple[str, ...]] = tuple(READINGS)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        own = self.kind.metrics
        return own if self.metric is None else tuple(dict.fromkeys([self.metric, *own]))

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Task.files`."""
        return tuple(source for source in (self.train_file, self.dev_file) if isinstance(source, Path))

    def read_passages(self) -> tuple[Passages, Passages]:
        """See `LanguageTask.read_passages`."""
        return self._passages(self.train_file, "train"), self._passages(self.dev_file, "dev")

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; the text for the final measurement is not read."""
        if self.train_file is None:
            raise InvalidData("--train-file must be given, but got --dev-file alone; add it")
        own = split_official(self._passages(self.train_file, "train"), self._passages(None, "dev"))
        return ResplitTask(name=self.name, whole=self, own=own)

    def more_text(self, path: Path, *, text: str, text_pair: str | None = None) -> Examples:
        """See `Task.more_text`."""
        return self._passages(path, "train")

    def _passages(self, source: Source | None, split: Literal["train", "dev"]) -> Passages:
        if source is None:
            return documents([], reading=self.reading, split=split, stride=self.stride)
        if isinstance(source, Path) and source.suffix.lower() == ".txt":
            text = running_text_of(source)
            return running_text(text, reading=self.reading, split=split, stride=self.stride, source=source)
        read = source.read([self.text]) if isinstance(source, Frame) else read_table(source, [self.text])
        return documents(read[self.text], reading=self.reading, split=split, stride=self.stride)
