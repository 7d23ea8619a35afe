"""Rerankers: how well a document answers a query."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidParameter
from whet.run.kinds._texts import TextPredictor
from whet.run.kinds.base import checked_texts, is_text
from whet.utils.inputs import one_line

__all__ = ["QueryWithDocuments", "RankedDocument", "Reranker"]

Array = np.ndarray[Any, Any]

_QUERY, _DOCUMENTS = "What is a compiler?", ["It translates programs.", "It is a fruit."]
_SQUASHED = "Sigmoid"
"""What sentence-transformers does with a score where the configuration names no other activation."""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document in the order of a query."""

    index: int
    """Its place in the list that was given."""
    text: str
    """What it says."""
    score: float
    """How well it answers the query; the larger the better."""


@dataclass(frozen=True)
class QueryWithDocuments:
    """A request to a server."""

    query: str
    documents: list[str]
    top: int | None = None
    """How many of the best are returned; all if None."""


class Reranker(TextPredictor):
    """A cross-encoder, which scores a query together with a document."""

    call: ClassVar[str] = f'predictor.rank("{_QUERY}", ["{_DOCUMENTS[0]}", "{_DOCUMENTS[1]}"])'
    request: ClassVar[Mapping[str, Any]] = {"query": _QUERY, "documents": _DOCUMENTS}
    library: ClassVar[str] = "sentence-transformers"
    has_labels: ClassVar[bool] = False

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`."""
        return [
            "from sentence_transformers import CrossEncoder",
            "",
            f"reranker = CrossEncoder({folder})",
            f'print(reranker.rank("{_QUERY}", ["{_DOCUMENTS[0]}", "{_DOCUMENTS[1]}"]))',
        ]

    @classmethod
    def inputs(cls, rows: Iterable[tuple[str, ...]]) -> list[Any]:
        """See `Predictor.inputs`; each candidate of a query is one."""
        return [(query, document) for query, *documents in rows for document in documents]

    def predict(self, pairs: tuple[str, str] | Iterable[tuple[str, str]]) -> list[float]:
        """Return the score of each pair of a query and a document, in order.

        Scores are those of CrossEncoder.predict: the model's own, between 0 and 1 unless its configuration says that
        they are not squashed.

        Args:
            pairs: a query and a document as a tuple, or an iterable of such pairs.
        """
        asked = checked_texts(pairs)
        alone = next((i for i, pair in enumerate(asked) if not isinstance(pair, tuple)), None)
        if alone is not None:
            raise InvalidParameter(
                f"pairs must be tuples of a query and a document, but got pairs[{alone}]="
                f"{one_line(repr(asked[alone]), 60)}; give them as [(query, document), ...], or call rank"
            )
        scores = self.logits(asked)[:, 0].astype(np.float64)
        listed: list[float] = (np.exp(-np.logaddexp(0, -scores)) if self._is_squashed() else scores).tolist()
        return listed

    def rank(self, query: str, documents: Sequence[str], *, top: int | None = None) -> list[RankedDocument]:
        """Return documents in the order of how well they answer a query, best first.

        Args:
            query: what is asked.
            documents: what may answer it.
            top: how many are returned; all if None.
        """
        if not is_text(query) or isinstance(documents, str) or not isinstance(documents, Iterable):
            raise InvalidParameter(
                "rank must get a query and a list of documents, but got "
                f"query={one_line(repr(query), 40)}, documents={one_line(repr(documents), 40)}; correct them"
            )
        if top is not None and not (isinstance(top, int) and top >= 1):
            raise InvalidParameter(f"1 <= top must hold, but got top={one_line(repr(top), 40)}; give more")
        listed = list(documents)
        scores = self.predict([(query, document) for document in listed])
        order = sorted(range(len(listed)), key=lambda i: -scores[i])
        return [RankedDocument(i, listed[i], scores[i]) for i in order[:top]]

    def answer(self, request: QueryWithDocuments) -> list[RankedDocument]:
        """See `Predictor.answer`."""
        return self.rank(request.query, request.documents, top=request.top)

    def _is_squashed(self) -> bool:
        """Whether scores are between 0 and 1, as the configuration tells sentence-transformers."""
        config = self._about.config
        own = config.get("sentence_transformers")
        name = own.get("activation_fn") if isinstance(own, Mapping) else None
        name = name or config.get("sbert_ce_default_activation_function") or _SQUASHED
        return str(name).rpartition(".")[2] == _SQUASHED
