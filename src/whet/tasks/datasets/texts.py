"""A user's own data for sentence embedders: texts without labels, or pairs of sentences with a score.

Texts alone suffice to compress a model, to train it back and to distil it. Only pairs can be scored.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task, split_official
from whet.tasks.data import Encoded, Examples
from whet.tasks.files import finite_scores
from whet.tasks.frames import Source
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.own_files import OwnFiles, read_source
from whet.tasks.similarity import SentencePairs, encoded_texts
from whet.tasks.splits import ResplitTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["OwnTexts", "PlainTexts"]


@dataclass(frozen=True)
class PlainTexts(Examples):
    """Texts that a model turns into vectors; nothing says what these should be, so that labels are None."""

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`."""
        rows = encoded_texts(self.texts, tokenizer, max_length=max_length)
        return Encoded(rows, list(range(len(rows))), [])


@dataclass(frozen=True, kw_only=True)
class OwnTexts(OwnFiles):
    """Texts, or pairs of sentences with a score, from files or tables in memory."""

    name: str = field(default="texts", init=False)
    """Always texts."""
    text: str
    """Name of the column of the texts, or of the first sentences."""
    text_pair: str | None = None
    """Name of the column of the second sentences; None for texts alone."""
    label: str = "label"
    """Name of the column of scores, any numbers that are higher for sentences that are more alike."""
    metric: str | None = None
    """Name of the metric of pairs that counts first; spearman if None."""

    file_kinds: ClassVar[tuple[str, ...]] = ("embedding",)
    own_metrics: ClassVar[tuple[str, ...]] = ("spearman", "pearson")

    @property
    def label_names(self) -> None:
        """See `Task.label_names`; there are none."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named("embedding")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`; texts alone have none."""
        own = self.own_metrics
        return () if self.text_pair is None else tuple(dict.fromkeys([self.metric or own[0], *own]))

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`.

        Raises:
            InvalidData: texts alone are to be measured on.
        """
        if self.dev_file is not None and self.text_pair is None:
            raise InvalidData(
                "embeddings must be measured on pairs of sentences with a score, but got texts alone; give "
                "--text-pair and --label, or --task sts12-16 or scifact"
            )
        empty = PlainTexts([], []) if self.text_pair is None else SentencePairs([], [], [])
        train, dev = (
            empty if source is None else self._examples(source) for source in (self.train_file, self.dev_file)
        )
        return train, dev

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; of pairs, both sentences."""
        columns = [column for column in (self.text, self.text_pair) if column is not None]
        texts = [text for column in read_source(self.for_training, columns).values() for text in column]
        train = PlainTexts(texts, [None] * len(texts))
        return ResplitTask(name=self.name, whole=self, own=split_official(train, PlainTexts([], [])))

    def _examples(self, source: Source) -> Examples:
        if self.text_pair is None:
            texts = read_source(source, [self.text])[self.text]
            return PlainTexts(texts, [None] * len(texts))
        columns = read_source(source, [self.text, self.text_pair, self.label])
        scores = finite_scores(columns[self.label], source=str(source))
        return SentencePairs(columns[self.text], scores, columns[self.text_pair])
