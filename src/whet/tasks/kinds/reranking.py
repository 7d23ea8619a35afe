"""Reranking: a query and a document are one input, and the head has one output, how well the document answers.

sentence-transformers calls such a model a cross-encoder. It is trained with the binary cross-entropy of relevance, as
`CrossEncoderTrainer` does by default for one output. What compression must keep are the scores themselves, whose
differences order the candidates.

Source: Nogueira, Cho, "Passage Re-ranking with BERT", 2019, arXiv 1901.04085.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from whet.errors import InvalidData
from whet.tasks.data import Batches
from whet.tasks.kinds._score import Score
from whet.tasks.kinds.base import Answers, Head
from whet.tasks.retrieval import Candidates

__all__ = ["Reranking"]

Array = np.ndarray[Any, Any]
_ACTIVATION_OF = ("sentence_transformers", "sbert_ce_default_activation_function")
"""Entries of a configuration that name it: of versions 4 and later, and of those before."""
_SIGMOID = "torch.nn.modules.activation.Sigmoid"


class Reranking(Score):
    """One score per query and document."""

    pipeline_tag: ClassVar[str] = "text-ranking"
    holds: ClassVar[str] = "a reranker"
    sentence_model: ClassVar[str | None] = "CrossEncoder"
    own_loss: ClassVar[bool] = False

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`; the head looks like that of a regressor."""
        return head.outputs == 1 and head.problem_type is None and head.said in (None, self.name())

    def mark(self, config: Any, settings: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `TaskKind.mark`; `CrossEncoder` reads what it applies to a score, a sigmoid if nothing is said."""
        if not any(getattr(config, entry, None) for entry in _ACTIVATION_OF):
            config.update({_ACTIVATION_OF[0]: {"activation_fn": settings.get("activation_fn") or _SIGMOID}})

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `TaskKind.loss`; the binary cross-entropy against relevance, 0 ... 1."""
        return binary_cross_entropy_with_logits(logits.squeeze(-1), labels.to(logits))

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; the candidates of each query, the best first."""
        if not isinstance(batches.source, Candidates):
            raise InvalidData(
                "a reranker must be measured on queries with candidates, but got single texts; give a task of reranking"
            )
        return batches.source.ranked(answers.logits[:, 0], batches)
