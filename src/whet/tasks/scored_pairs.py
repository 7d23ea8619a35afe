"""Pairs with scores for models of two kinds: the model's kind says how they are read.

A regressor reads both sentences at once, a model of sentence embeddings each by itself.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from whet.tasks.base import Splits, Task
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.similarity import SentencePairs

__all__ = ["ScoredTexts", "SimilarityTask"]

_EMBEDDING, _REGRESSION = "embedding", "regression"


@dataclass(frozen=True, kw_only=True)
class SimilarityTask(Task):
    """Pairs with scores, read as two inputs each."""

    whole: Task
    """Gives the pairs, which a regressor reads as one input each."""
    metric: str | None = None
    """Name of the metric that counts first; spearman if None, since cosines are on no scale of the data's."""

    names: ClassVar[tuple[str, ...]] = ()

    @property
    def label_names(self) -> None:
        """See `Task.label_names`."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named(_EMBEDDING)

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return tuple(dict.fromkeys([self.metric or "spearman", "spearman", "pearson"]))

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Task.files`."""
        return self.whole.files

    def unlabeled(self) -> Task:
        """See `Task.unlabeled`."""
        return SimilarityTask(name=self.name, whole=self.whole.unlabeled())

    def say_once(self, about: str, sentence: str) -> None:
        """See `Task.say_once`."""
        self.whole.say_once(about, sentence)

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        train, dev = self.whole.read()
        return _side_by_side(train), _side_by_side(dev)

    @cached_property
    def splits(self) -> Splits:
        """See `Task.splits`."""
        return Splits(*map(_side_by_side, self.whole.splits))


def _side_by_side(examples: Examples) -> Examples:
    """Pairs as two inputs each; single texts stay as they are, since only a measurement compares."""
    return examples if examples.pairs is None else SentencePairs(examples.texts, examples.labels, examples.pairs)


class ScoredTexts(Task):
    """The base of tasks whose labels may be scores of pairs."""

    def for_kind(self, kind: TaskKind) -> Task:
        """See `Task.for_kind`; pairs with scores serve models of sentence embeddings too."""
        if (kind.name(), self.kind.name()) == (_EMBEDDING, _REGRESSION):
            return SimilarityTask(name=self.name, whole=self, metric=getattr(self, "metric", None))  # of own data
        return super().for_kind(kind)
