"""Regression: each text has a score, and the head has one output."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from whet.tasks.data import Batches
from whet.tasks.kinds._score import Score
from whet.tasks.kinds.base import Answers, Head

__all__ = ["Regression"]

Array = np.ndarray[Any, Any]


class Regression(Score):
    """One score per text."""

    problem_type: ClassVar[str | None] = "regression"
    holds: ClassVar[str] = "a regressor"
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """See `TaskKind.fits_labels`."""
        return label_names is None

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`."""
        told = head.problem_type in (None, self.problem_type) and head.said in (None, self.name())
        return head.outputs == 1 and told

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; the score."""
        scores: Array = answers.logits[:, 0]
        return scores
