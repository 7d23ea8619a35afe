"""Queries and the documents that answer them: for models that embed both, and for models that score candidates.

An example is a query. Its label says what documents are worth to it, a mapping of a document's number to its relevance;
documents that it lacks are worth nothing. A prediction is a ranking: numbers of documents, the best first.

Source: Thakur, Reimers, Rücklé, Srivastava, Gurevych, "BEIR: A Heterogenous Benchmark for Zero-shot Evaluation of
Information Retrieval Models", 2021, arXiv 2104.08663.
Differs: equal scores are ordered as by trec_eval, the larger id first, so that no order of a file decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from whet.errors import InvalidData
from whet.tasks.data import Batches, Encoded, Examples
from whet.tasks.similarity import Embedded, encoded_texts, unit_vectors
from whet.utils.files import json_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Candidates", "Corpus", "Judgments", "Retrieval", "best_first", "grouped", "most_relevant", "nearest"]

Array = np.ndarray[Any, Any]
Judgments = Mapping[int, float]
"""The relevance of documents by their numbers; above 0 means that the document answers the query."""
DEPTH = 100
"""How many documents a ranking holds."""
_BLOCK = 2**24
"""Similarities in memory at a time."""
_AS_QUERY, _AS_DOCUMENT = ("query",), ("document", "passage", "corpus")
"""Names of prompts, as sentence-transformers looks for them."""
_QUERY = -1
"""The note of an input that is a query; that of a document is its number."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents in falling order of their ids, so that a document's number orders equal scores."""

    ids: Sequence[str]
    """Different from each other."""
    texts: Sequence[str]
    """Title and text."""

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Self:
        """Return a corpus from texts by id, in any order."""
        ids = sorted(texts, reverse=True)
        return cls(ids, [texts[name] for name in ids])

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each document by its id."""
        return {name: number for number, name in enumerate(self.ids)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids and texts."""
        return json_digest([list(self.ids), list(self.texts)])

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Retrieval(Embedded):
    """Queries, which a model of sentence embeddings answers from a corpus.

    `texts` are the queries, `labels` their judgments. The documents are inputs that belong to all queries.
    """

    corpus: Corpus = field(default_factory=lambda: Corpus([], []))
    """All documents."""
    whole: bool = True
    """Whether inputs are all documents, or the first relevant one of each query alone."""

    @property
    def judged(self) -> bool:
        """See `Examples.judged`; documents that stand for queries have no judgments."""
        return any(self.labels)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`; in rising order of lengths. A note is the document's number, or -1 for a query."""
        owners, notes = list(range(len(self))), [_QUERY] * len(self)
        if self.whole:
            owners += [-1] * len(self.corpus)
            notes += range(len(self.corpus))
        else:
            found = {i: min(relevant) for i, judged in enumerate(self.labels) if (relevant := _relevant(judged))}
            owners += found.keys()
            notes += found.values()
        documents = [self.corpus.texts[number] for number in notes[len(self) :]]
        rows = encoded_texts(self.texts, tokenizer, max_length=max_length, roles=_AS_QUERY)
        rows += encoded_texts(documents, tokenizer, max_length=max_length, roles=_AS_DOCUMENT)
        return _by_length(Encoded(rows, owners, notes))

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """See `Examples.cut_share`; of a sample of the documents."""
        texts = self.corpus.texts[:: max(1, len(self.corpus) // 500)] or self.texts
        rows = encoded_texts(texts, tokenizer, max_length=max_length + 1, roles=_AS_DOCUMENT)
        return sum(len(row["input_ids"]) > max_length for row in rows) / len(rows)

    def compared(self, vectors: Array, batches: Batches) -> Array:
        """See `Embedded.compared`; the numbers of the nearest documents by cosine, the best first."""
        assert batches.owners is not None  # documents are inputs too
        notes, units = np.asarray(batches.notes), unit_vectors(vectors).astype(np.float32)
        queries = np.empty((len(self), units.shape[1]), np.float32)
        queries[batches.owners[notes == _QUERY]] = units[notes == _QUERY]
        documents = np.flatnonzero(notes != _QUERY)
        documents = documents[np.argsort(notes[documents], kind="stable")]
        found = nearest(queries, units[documents])
        return _objects([notes[documents[row]] for row in found])

    def brief(self) -> Self:
        """See `Examples.brief`; a query and its first relevant document."""
        return replace(self, whole=False)

    def joined(self, others: Examples) -> Self:
        """See `Examples.joined`; both must have the same corpus."""
        if isinstance(others, Retrieval) and others.corpus.digest != self.corpus.digest:
            raise InvalidData("all queries must be of one corpus, but got two; give data of one corpus")
        return super().joined(others)

    def plain(self) -> list[tuple[str, ...]]:
        """See `Examples.plain`; a query and its relevant documents."""
        documents = ([self.corpus.texts[number] for number in _relevant(judged)] for judged in self.labels)
        return [(text, *found) for text, found in zip(self.texts, documents, strict=True)]

    def digest(self) -> str:
        """See `Examples.digest`; the corpus counts too."""
        return json_digest([super().digest(), self.corpus.digest])


@dataclass(frozen=True)
class Candidates(Examples):
    """Queries with candidates, which a reranker scores one by one.

    `texts` are the queries, `pairs` the texts of each query's candidates, and a document's number is its place among
    them. Judgments may name further numbers: relevant documents that are no candidates, which cost recall.
    """

    most: float = 1.0
    """The largest relevance of the data, which the model is to be certain of."""

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`; an input for each candidate, in rising order of lengths, whose number is its note."""
        assert self.pairs is not None
        owners = [i for i, candidates in enumerate(self.pairs) for _ in candidates]
        notes = [number for candidates in self.pairs for number in range(len(candidates))]
        documents = [text for candidates in self.pairs for text in candidates]
        encoded = tokenizer([self.texts[i] for i in owners], documents, truncation=True, max_length=max_length)
        gains = [max(0.0, self.labels[i].get(number, 0.0)) / self.most for i, number in zip(owners, notes, strict=True)]
        rows = [{**{key: values[i] for key, values in encoded.items()}, "labels": gain} for i, gain in enumerate(gains)]
        return _by_length(Encoded(rows, owners, notes))

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """See `Examples.cut_share`; of the candidates of a few queries."""
        rows = self.brief().encode(tokenizer, max_length=max_length + 1).rows
        return sum(len(row["input_ids"]) > max_length for row in rows) / max(1, len(rows))

    def ranked(self, scores: Array, batches: Batches) -> Array:
        """Return (examples,) rankings of each query's candidates.

        Args:
            scores: (inputs,) in the order of the batches.
            batches: these examples, encoded.
        """
        assert self.pairs is not None
        owners = np.arange(len(scores)) if batches.owners is None else batches.owners
        by_query = [np.full(len(candidates), -np.inf) for candidates in self.pairs]
        for owner, number, score in zip(owners, batches.notes, scores, strict=True):
            by_query[owner][number] = score
        return _objects([best_first(own) for own in by_query])

    def brief(self) -> Self:
        """See `Examples.brief`; a relevant candidate and another."""
        assert self.pairs is not None
        kept = [_one_of_each(judged, len(own)) for judged, own in zip(self.labels, self.pairs, strict=True)]
        return replace(
            self,
            pairs=[tuple(own[i] for i in few) for own, few in zip(self.pairs, kept, strict=True)],
            labels=[
                {new: judged[old] for new, old in enumerate(few) if old in judged}
                for judged, few in zip(self.labels, kept, strict=True)
            ],
        )

    def plain(self) -> list[tuple[str, ...]]:
        """See `Examples.plain`; a query and its candidates."""
        assert self.pairs is not None
        return [(text, *candidates) for text, candidates in zip(self.texts, self.pairs, strict=True)]


def grouped(queries: Sequence[str], texts: Sequence[str], relevances: Sequence[float], *, source: str) -> Candidates:
    """Return rows of a query, a text and its relevance as queries with candidates, in the order of first rows.

    The candidates of a query come in falling order of their texts, so that no order of rows decides equal scores.

    Args:
        queries: one per row.
        texts: one per row.
        relevances: one per row; 0 or less is worth nothing.
        source: where rows come from, for the error message.

    Raises:
        InvalidData: a text has two relevances for one query.
    """
    found: dict[str, dict[str, float]] = {}
    for row, (query, text, relevance) in enumerate(zip(queries, texts, relevances, strict=True), start=1):
        before = found.setdefault(query, {}).setdefault(text, relevance)
        if before != relevance:
            raise InvalidData(
                f"a text must have one relevance for a query, but row {row} of {source} says {relevance:g} where a row "
                f"before it says {before:g}; remove one of them"
            )
    candidates = [tuple(sorted(own, reverse=True)) for own in found.values()]
    labels = [
        {number: own[text] for number, text in enumerate(ordered)}
        for own, ordered in zip(found.values(), candidates, strict=True)
    ]
    return Candidates(list(found), labels, candidates, most=most_relevant(labels))


def most_relevant(labels: Sequence[Judgments]) -> float:
    """Return the largest relevance, or 1 where nothing is relevant."""
    most = max((gain for gains in labels for gain in gains.values()), default=1.0)
    return most if most > 0 else 1.0


def nearest(queries: Array, documents: Array, *, depth: int = DEPTH) -> list[Array]:
    """Return the documents of the largest products with each query, by exact search; see `best_first`.

    Args:
        queries: (queries, width).
        documents: (documents, width).
        depth: how many documents to return, at most.
    """
    size = max(1, _BLOCK // max(1, len(documents)))
    blocks = (queries[start : start + size] @ documents.T for start in range(0, len(queries), size))
    return [best_first(scores, depth=depth) for block in blocks for scores in block]


def best_first(scores: Array, *, depth: int | None = None) -> Array:
    """Return the indices of the largest of (documents,) scores, the largest first; of equal ones, the smaller index.

    Args:
        scores: any floats.
        depth: how many to return, at most; all if None.
    """
    if depth is None or depth >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
    enough = np.flatnonzero(scores >= least)
    best: Array = enough[np.argsort(-scores[enough], kind="stable")][:depth]
    return best


def _relevant(judged: Judgments) -> list[int]:
    return [number for number, relevance in judged.items() if relevance > 0]


def _one_of_each(judged: Judgments, count: int) -> list[int]:
    """The first relevant candidate and the first other one, as far as there are both."""
    gains = [judged.get(number, 0.0) > 0 for number in range(count)]
    return [gains.index(wanted) for wanted in (True, False) if wanted in gains]


def _by_length(encoded: Encoded) -> Encoded:
    """The same inputs in rising order of their tokens, which needs the least padding."""
    order = np.argsort([len(row["input_ids"]) for row in encoded.rows], kind="stable").tolist()
    rows, owners, notes = ([part[i] for i in order] for part in encoded)
    return Encoded(rows, owners, notes)


def _objects(arrays: Sequence[Array]) -> Array:
    """(examples,) an array of arrays, which may be equally long."""
    objects = np.empty(len(arrays), dtype=object)
    for i, array in enumerate(arrays):
        objects[i] = array
    return objects
