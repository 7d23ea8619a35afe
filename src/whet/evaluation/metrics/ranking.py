"""Metrics of rankings: how well the documents that answer a query come first, as a mean over queries.

A label is what one query's documents are worth, a mapping of a document's number to its relevance; documents that it
lacks are worth nothing. A prediction is a ranking, the numbers of documents, the best first.

Source: Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20, 2002, for nDCG, whose
gain is the relevance itself, as in trec_eval and BEIR; Voorhees, "The TREC-8 Question Answering Track Report", 1999,
for the reciprocal rank.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from whet.evaluation.metrics.base import SummedQuality

__all__ = ["MRR10", "NDCG10", "Recall10", "Recall100", "discounted_gain", "ndcg", "recall", "reciprocal_rank"]

Array = np.ndarray[Any, Any]
Judgments = Mapping[int, float]
"""The relevance of each judged document of a query, above 0 if it answers the query."""


def discounted_gain(gains: Sequence[float] | Array) -> float:
    """Return the sum of gains, each divided by log2(1 + rank), where the first rank is 1."""
    values = np.asarray(gains, dtype=float)
    return float((values / np.log2(np.arange(2, len(values) + 2))).sum())


def ndcg(judgments: Judgments, ranking: Sequence[int] | Array, depth: int) -> float:
    """Return the discounted gain of the first documents over that of the best ranking, 0 ... 1.

    Args:
        judgments: of all documents, ranked or not.
        ranking: numbers of documents, the best first.
        depth: how many documents count.

    Returns:
        0 if no document is relevant.
    """
    best = discounted_gain(sorted((max(0.0, gain) for gain in judgments.values()), reverse=True)[:depth])
    found = [max(0.0, judgments.get(int(document), 0.0)) for document in ranking[:depth]]
    return discounted_gain(found) / best if best else 0.0


def recall(judgments: Judgments, ranking: Sequence[int] | Array, depth: int) -> float:
    """Return the fraction of the relevant documents that are among the first ones; 0 if there are none."""
    relevant = _relevant(judgments)
    return len(relevant.intersection(map(int, ranking[:depth]))) / len(relevant) if relevant else 0.0


def reciprocal_rank(judgments: Judgments, ranking: Sequence[int] | Array, depth: int) -> float:
    """Return 1 over the rank of the first relevant document, or 0 if none is among the first ones."""
    relevant = _relevant(judgments)
    return next((1 / rank for rank, document in enumerate(ranking[:depth], 1) if int(document) in relevant), 0.0)


def _relevant(judgments: Judgments) -> set[int]:
    return {document for document, relevance in judgments.items() if relevance > 0}


class _MeanOverQueries(SummedQuality):
    """The mean of a score that each query has by itself, which makes each resample of queries cheap."""

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`; the score of each query, and 1, (queries, 2)."""
        scores = [self.of_query(judged, ranking) for judged, ranking in zip(labels, predictions, strict=True)]
        return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        return float(totals[0] / totals[1])

    @abstractmethod
    def of_query(self, judgments: Judgments, ranking: Array) -> float:
        """Return the score of one query."""


class NDCG10(_MeanOverQueries):
    """Normalised discounted gain of the first 10 documents, the mean over queries."""

    name: ClassVar[str] = "ndcg@10"

    def of_query(self, judgments: Judgments, ranking: Array) -> float:
        """See `_MeanOverQueries.of_query`."""
        return ndcg(judgments, ranking, 10)


class Recall10(_MeanOverQueries):
    """Fraction of the relevant documents that are among the first 10, the mean over queries."""

    name: ClassVar[str] = "recall@10"

    def of_query(self, judgments: Judgments, ranking: Array) -> float:
        """See `_MeanOverQueries.of_query`."""
        return recall(judgments, ranking, 10)


class Recall100(_MeanOverQueries):
    """Fraction of the relevant documents that are among the first 100, the mean over queries."""

    name: ClassVar[str] = "recall@100"

    def of_query(self, judgments: Judgments, ranking: Array) -> float:
        """See `_MeanOverQueries.of_query`."""
        return recall(judgments, ranking, 100)


class MRR10(_MeanOverQueries):
    """One over the rank of the first relevant document, 0 beyond rank 10; the mean over queries."""

    name: ClassVar[str] = "mrr@10"

    def of_query(self, judgments: Judgments, ranking: Array) -> float:
        """See `_MeanOverQueries.of_query`."""
        return reciprocal_rank(judgments, ranking, 10)
