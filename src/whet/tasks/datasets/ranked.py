"""Own data for rerankers: rows of a query, a text, and how relevant the text is to the query.

The rows of one query are its candidates. The columns are query, text and label; with `text_pair`, `text` names the
column of queries, and `text_pair` that of texts.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from whet.tasks.base import Task, split_official
from whet.tasks.data import Examples
from whet.tasks.frames import Source
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.own_files import OwnFiles, read_source
from whet.tasks.retrieval import Candidates, grouped
from whet.tasks.splits import ResplitTask

__all__ = ["RankedTexts"]


@dataclass(frozen=True, kw_only=True)
class RankedTexts(OwnFiles):
    """Queries with candidates, from files or tables in memory."""

    name: str = field(default="ranked", init=False)
    """Always ranked."""
    text: str
    """Name of the column of the texts; of queries, if there is a second one."""
    text_pair: str | None = None
    """Name of the column of the texts, where that of the queries is not query."""
    label: str = "label"
    """Name of the column of relevances."""
    metric: str | None = None
    """Name of the metric that counts first; ndcg@10 if None."""

    file_kinds: ClassVar[tuple[str, ...]] = ("reranking",)
    own_metrics: ClassVar[tuple[str, ...]] = ("ndcg@10", "mrr@10")

    @property
    def label_names(self) -> None:
        """See `Task.label_names`."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named("reranking")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return tuple(dict.fromkeys([self.metric or self.own_metrics[0], *self.own_metrics]))

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self._read(self.train_file), self._read(self.dev_file)

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`; no text is relevant."""
        queries, texts = read_source(self.for_training, self._text_columns).values()
        train = grouped(queries, texts, [0.0] * len(queries), source=str(self.for_training))
        return ResplitTask(name=self.name, whole=self, own=split_official(train, Candidates([], [], [])))

    @property
    def _text_columns(self) -> list[str]:
        return ["query", self.text] if self.text_pair is None else [self.text, self.text_pair]

    def _read(self, source: Source | None) -> Candidates:
        if source is None:
            return Candidates([], [], [])
        names = [*self._text_columns, self.label]
        table = read_source(source, names)
        queries, texts, labels = (table[name] for name in names)
        return grouped(queries, texts, self.kind.read_labels(labels, None, source=str(source)), source=str(source))
