"""A task from the user's own sentences of words with tags; see `whet.tasks.tagged_files` for the forms of data.

Tags of IOB1 and IOB2 become those of IOB2, with both tags of every type. Other tags stay as they are: those of IOBES,
or parts of speech, which are scored by words. The classes are those of the training data, or of the dev data where
there is no other. Tags are not read where nothing asks for them.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from whet.tasks.base import Task, split_official
from whet.tasks.data import Examples
from whet.tasks.frames import Source
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.own_files import OwnFiles
from whet.tasks.splits import ResplitTask
from whet.tasks.tagged_files import COLUMN_FORMATS, ENTITY_METRICS, Sentences, indexed, read_tagged, said_of, unlabeled
from whet.tasks.tags import parsed, tag_names
from whet.tasks.words import TaggedWords

__all__ = ["Tagged"]


@dataclass(frozen=True, kw_only=True)
class Tagged(OwnFiles):
    """Sentences of words with their tags, from files, folders or tables in memory."""

    name: str = field(default="tabular", init=False)
    """Always tabular, as of all own data."""
    text: str = "words"
    """Name of the column of words in tables."""
    label: str = "tags"
    """Name of the column of tags in tables."""
    metric: str | None = None
    """Name of a quality metric; entity_f1 if None, or word_accuracy where tags name no entities."""

    file_kinds: ClassVar[tuple[str, ...]] = ("token_classification",)
    file_endings: ClassVar[tuple[str, ...]] = tuple(ending for ending in COLUMN_FORMATS if ending != ".txt")

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return self._tags

    @property
    def ordered(self) -> bool:
        """See `Task.ordered`."""
        return False

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named("token_classification")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        usual = ENTITY_METRICS if any(parsed(tag).type for tag in self._tags) else ("word_accuracy",)
        return tuple(dict.fromkeys([self.metric or usual[0], *usual]))

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        train, dev = (self._examples(source) for source in (self.train_file, self.dev_file))
        return train, dev

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; the sentences have no tags."""
        sentences = read_tagged(self.for_training, text=self.text, label=self.label, labeled=False)
        own = split_official(unlabeled(sentences), TaggedWords([], []))
        return ResplitTask(name=self.name, whole=self, own=own)

    def more_text(self, path: Path, *, text: str, text_pair: str | None = None) -> Examples:
        """See `Task.more_text`; tags are not read."""
        return unlabeled(read_tagged(path, text=text, label=self.label, labeled=False))

    @cached_property
    def _sentences(self) -> dict[Source, Sentences]:
        sources = [source for source in (self.train_file, self.dev_file) if source is not None]
        return {source: read_tagged(source, text=self.text, label=self.label) for source in dict.fromkeys(sources)}

    @cached_property
    def _tags(self) -> tuple[str, ...]:
        return tag_names({tag for tags in next(iter(self._sentences.values())).tags for tag in tags})

    def _examples(self, source: Source | None) -> Examples:
        if source is None:
            return TaggedWords([], [])
        sentences = self._sentences[source]
        self.say_once(f"tags of {source}", said_of(sentences, source))
        return indexed(sentences, self._tags, source=source)
