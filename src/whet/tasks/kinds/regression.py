"""Regression: each text has a score, and the head has one output."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.data import Batches
from whet.tasks.files import finite_scores
from whet.tasks.kinds._distributions import Gaussian
from whet.tasks.kinds.base import Answers, Head
from whet.tasks.pairing import Pairing

__all__ = ["Regression"]

Array = np.ndarray[Any, Any]


class Regression(Gaussian):
    """One score per text: the mean of a normal distribution of unit variance."""

    problem_type: ClassVar[str | None] = "regression"
    holds: ClassVar[str] = "a regressor"
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """See `TaskKind.fits_labels`."""
        return label_names is None

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`."""
        return head.outputs == 1 and head.said in (None, self.name())

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return ("score",)

    def label_names(self, head: Mapping[int, str]) -> None:
        """See `TaskKind.label_names`; scores have none."""
        return

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """See `TaskKind.pairing`; there is one output."""
        if len(head) != 1:
            raise InvalidData(
                f"the model's head must give one score, but got num_labels={len(head)}; "
                "fine-tune it on this task, or name the right task or column"
            )
        if label_map:
            raise InvalidParameter("--label-map must go with classes, but the task's labels are scores; leave it out")
        return Pairing([0])

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[float]:
        """See `TaskKind.read_labels`."""
        return finite_scores(raw, source=source)

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> list[float]:
        """See `TaskKind.renumbered`; scores have no numbering."""
        return list(labels)

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; the score."""
        scores: Array = answers.logits[:, 0]
        return scores
