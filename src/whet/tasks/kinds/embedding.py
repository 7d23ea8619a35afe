"""Sentence embeddings: a text is a vector, and two texts are as alike as the cosine of their vectors.

A row is the vector of a text, pooled from its tokens and scaled to unit length. For unit vectors, the KL of two normal
distributions around them is ½‖a − b‖² = 1 − cos(a, b).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from whet.errors import InvalidData, InvalidModel
from whet.numerics.pooling import pool
from whet.tasks.data import Batch, Batches
from whet.tasks.kinds._distributions import Gaussian
from whet.tasks.kinds.base import NO_HEAD, Answers, Head, Labels, LogitRows
from whet.tasks.sentences import SentenceModules

__all__ = ["SentenceEmbedding"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SentenceEmbedding(Gaussian):
    """A vector per text, which is compared with others by their cosine."""

    modules: SentenceModules | None = None
    """What makes a vector of hidden states; None where no model is known yet."""

    pipeline_tag: ClassVar[str] = "sentence-similarity"
    auto_class: ClassVar[str] = "AutoModel"
    heads: ClassVar[tuple[str, ...]] = (NO_HEAD,)
    holds: ClassVar[str] = "a model of sentence embeddings"
    gives: ClassVar[str] = "vectors"
    metrics: ClassVar[tuple[str, ...]] = ()
    has_labels: ClassVar[bool] = False
    one_row: ClassVar[bool] = False
    absent: ClassVar[float | None] = 0.0
    outputs: ClassVar[tuple[str, ...]] = ("sentence_embedding", "last_hidden_state")

    def configured(self, config: Any) -> "SentenceEmbedding":
        """See `TaskKind.configured`.

        Raises:
            InvalidModel: the configuration says nothing of pooling.
        """
        modules = SentenceModules.of(config)
        if modules is None:
            raise InvalidModel(
                "a model without a head must have a pooling, as those of sentence-transformers have, but got a "
                f"{type(config).__name__} without one; save it with sentence-transformers first"
            )
        return SentenceEmbedding(modules)

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`; no other kind has none."""
        return True

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> Labels:
        """See `TaskKind.read_labels`; no column says what a vector should be."""
        raise InvalidData(f"embeddings have no labels in a column, but got {source}; leave --label out")

    def rows(self, outputs: Any, batch: Batch) -> LogitRows:
        """See `TaskKind.rows`; one unit vector for each input, as long as `dimensions` says."""
        vectors = getattr(outputs, "sentence_embedding", None)
        if vectors is None:
            vectors = self._pooled(outputs, batch)
        return LogitRows(normalize(vectors, dim=-1), torch.arange(len(vectors), device=vectors.device))

    def exported(self, outputs: Any, batch: Batch) -> tuple[Tensor, ...]:
        """See `TaskKind.exported`; the vector as sentence-transformers gives it, and those of the tokens."""
        vectors = self._pooled(outputs, batch)
        return normalize(vectors, dim=-1) if self._known.normalize else vectors, outputs.last_hidden_state

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; a task says what is compared with what.

        Raises:
            InvalidData: the texts have nothing that vectors could be scored by.
        """
        compared = getattr(batches.source, "compared", None)
        if compared is None:
            raise InvalidData(
                "embeddings must be scored on pairs of sentences or on queries, but got texts alone; give --task"
            )
        predicted: Array = compared(answers.logits, batches)
        return predicted

    @property
    def _known(self) -> SentenceModules:
        if self.modules is None:
            raise InvalidModel("a pooling must be known, but got none; give a folder of sentence-transformers")
        return self.modules

    def _pooled(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the vectors before they are scaled."""
        vectors = pool(outputs.last_hidden_state, batch["attention_mask"], self._known.pooling)
        return vectors[..., : self._known.dimensions]
