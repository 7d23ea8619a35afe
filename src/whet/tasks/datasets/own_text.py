"""A task from the user's own text, for language models.

A file that ends in .txt is one running text. In a table each row of the text column is a document of its own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from whet.tasks.base import Task, split_official
from whet.tasks.corpus import Passages, documents, running_text
from whet.tasks.data import Examples
from whet.tasks.datasets._language import READINGS, LanguageTask, running_text_of
from whet.tasks.frames import Source
from whet.tasks.own_files import OwnFiles, read_source
from whet.tasks.splits import ResplitTask

__all__ = ["OwnText"]


@dataclass(frozen=True, kw_only=True)
class OwnText(OwnFiles, LanguageTask):
    """Text from files or tables in memory."""

    name: str = field(default="tabular", init=False)
    """Always tabular, as of all own data."""
    text: str = "text"
    """Name of the column of texts in tables."""
    label: str = "label"
    """Not read: a text has no labels."""
    metric: str | None = None
    """Name of the quality metric that counts; perplexity if None."""
    stride: int | None = None
    """Tokens that each window counts in the final measurement; half of a window if None."""

    file_kinds: ClassVar[tuple[str, ...]] = tuple(READINGS)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        own = self.kind.metrics
        return own if self.metric is None else tuple(dict.fromkeys([self.metric, *own]))

    def read_passages(self) -> tuple[Passages, Passages]:
        """See `LanguageTask.read_passages`."""
        return self._passages(self.train_file, "train"), self._passages(self.dev_file, "dev")

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; the text for the final measurement is not read."""
        own = split_official(self._passages(self.for_training, "train"), self._passages(None, "dev"))
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
        read = read_source(source, [self.text])
        return documents(read[self.text], reading=self.reading, split=split, stride=self.stride)
