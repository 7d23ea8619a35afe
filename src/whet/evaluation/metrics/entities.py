"""Metrics of taggers: precision, recall and F1 of entities, of which type and both ends must be right.

They are equal to those of the official script conlleval and of seqeval, in IOB1 and IOB2. Words without an answer count
as O, so that scores are over all words. Resampling draws sentences.

Source: Tjong Kim Sang, De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003, arXiv cs/0306050.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import ModelUnderTest, SummedQuality
from whet.tasks.tags import OUTSIDE, Scheme, Span, iob2, is_iob1, parsed, spans, strict_spans
from whet.tasks.words import NOT_ANSWERED

__all__ = [
    "EntityF1",
    "EntityF1ByType",
    "EntityPrecision",
    "EntityRecall",
    "StrictEntityF1",
    "WordAccuracy",
    "entity_counts",
    "f1_of_counts",
]

Array = np.ndarray[Any, Any]
_UNKNOWN = ""
"""A tag that a head has and the data lack; it is part of no entity, and right for no word."""
Reader = Callable[[Sequence[str]], list[Span]]
"""Returns the entities of a sentence from its tags."""


def entity_counts(
    labels: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], types: Sequence[str], read: Reader = spans
) -> Array:
    """Return the numbers of right, predicted and true entities, (sentences, types, 3).

    Args:
        labels: the tags of each sentence.
        predictions: as many tags.
        types: of entities; others do not count.
        read: reads the entities of a sentence.
    """
    index = {name: i for i, name in enumerate(types)}
    counts = np.zeros((len(labels), len(types), 3))
    for i, pair in enumerate(zip(predictions, labels, strict=True)):
        predicted, true = (set(read(tags)) for tags in pair)
        for column, entities in enumerate((predicted & true, predicted, true)):
            for entity in entities:
                if entity.type in index:
                    counts[i, index[entity.type], column] += 1
    return counts


def f1_of_counts(counts: Array) -> float:
    """Return F1 from the numbers of right, predicted and true entities, (3,); 0 if there are none."""
    right, predicted, true = counts
    return float(2 * right / (predicted + true)) if predicted + true else 0.0


class _OfTags(SummedQuality):
    """A metric whose labels and predictions are indices of tags."""

    def __init__(self, tags: Sequence[str] = ()) -> None:
        self._tags = tuple(tags)

    def for_labels(self, label_names: Sequence[str]) -> Self:
        """See `Quality.for_labels`."""
        return type(self)(label_names)

    def renumbered(self, order: Sequence[int]) -> Self:
        """See `Quality.renumbered`."""
        tags = [_UNKNOWN] * (max(order, default=-1) + 1)
        for tag, index in zip(self._tags, order, strict=False):  # a head may have more tags than the data
            tags[index] = tag
        return type(self)(tags)

    @property
    def scheme(self) -> Scheme:
        """IOB2, or IOB1 for a head without any B."""
        return "IOB2" if any(parsed(tag).prefix == "B" for tag in self._tags) else "IOB1"

    def named(self, tagged: Array) -> list[list[str]]:
        """Return the tags of sentences, O for words without an answer; in IOB2 if the head has B but speaks IOB1."""
        sentences = [[self._name(tag) for tag in one] for one in tagged]
        return [iob2(one) for one in sentences] if self.scheme == "IOB2" and is_iob1(sentences) else sentences

    def _name(self, tag: int) -> str:
        if tag == NOT_ANSWERED:
            return OUTSIDE
        return self._tags[tag] if tag < len(self._tags) else _UNKNOWN


class _Entities(_OfTags):
    """A metric of the entities in sentences."""

    @property
    def types(self) -> list[str]:
        """The types of entities among the tags."""
        return sorted({parsed(tag).type for tag in self._tags} - {""})

    def read(self, tags: Sequence[str]) -> list[Span]:
        """Return the entities of a sentence."""
        return spans(tags)

    def by_type(self, labels: Array, predictions: Array) -> Array:
        """Return the numbers of right, predicted and true entities, (sentences, types, 3)."""
        return entity_counts(self.named(labels), self.named(predictions), self.types, self.read)

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`."""
        summed: Array = self.by_type(labels, predictions).sum(1)
        return summed


class EntityF1(_Entities):
    """F1 of all entities together, as conlleval and seqeval give it."""

    name: ClassVar[str] = "entity_f1"

    def __init__(self, tags: Sequence[str] = (), *, only: str | None = None) -> None:
        super().__init__(tags)
        self._only = only

    @property
    def types(self) -> list[str]:
        """The types that count: all, or the one that was asked for."""
        return super().types if self._only is None else [self._only]

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        return f1_of_counts(totals)


class EntityPrecision(_Entities):
    """Fraction of the predicted entities that are right; 0 if there are none."""

    name: ClassVar[str] = "entity_precision"

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        return float(totals[0] / totals[1]) if totals[1] else 0.0


class EntityRecall(_Entities):
    """Fraction of the true entities that are found; 0 if there are none."""

    name: ClassVar[str] = "entity_recall"

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        return float(totals[0] / totals[2]) if totals[2] else 0.0


class StrictEntityF1(EntityF1):
    """F1 of entities that keep the rules of their scheme, as seqeval's strict mode gives it; see `_OfTags.scheme`."""

    name: ClassVar[str] = "strict_entity_f1"

    def read(self, tags: Sequence[str]) -> list[Span]:
        """See `_Entities.read`."""
        return strict_spans(tags, self.scheme)


class EntityF1ByType(EntityF1):
    """F1 of the entities of each type, one measurement a type; its score is their mean."""

    name: ClassVar[str] = "entity_f1_by_type"

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`; (sentences, 3 types)."""
        return self.by_type(labels, predictions).reshape(len(labels), -1)

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        scores = [f1_of_counts(counts) for counts in totals.reshape(-1, 3)]
        return float(np.mean(scores)) if scores else 0.0

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        measured = [EntityF1(self._tags, only=kind).measure(subjects) for kind in self.types]
        return [
            [
                replace(found[i][0], metric=f"{EntityF1.name}_{kind}")
                for kind, found in zip(self.types, measured, strict=True)
            ]
            for i in range(len(subjects))
        ]


class WordAccuracy(_OfTags):
    """Fraction of words with the right tag; words without an answer are wrong, unless their tag is O."""

    name: ClassVar[str] = "word_accuracy"

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`; right words, and all."""
        pairs = list(zip(self.named(labels), self.named(predictions), strict=True))
        right = [sum(one == other for one, other in zip(*tags, strict=True)) for tags in pairs]
        return np.array([right, [len(tags) for tags, _ in pairs]], float).T

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        return float(totals[0] / totals[1]) if totals[1] else 0.0
