"""Regression: each text has a score, and the head has one output."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import mse_loss

from whet.errors import InvalidData, InvalidParameter
from whet.numerics.divergence import gaussian_kl
from whet.tasks.files import finite_scores
from whet.tasks.kinds.base import TaskKind
from whet.tasks.pairing import Pairing

__all__ = ["Regression"]

Array = np.ndarray[Any, Any]


class Regression(TaskKind):
    """One score per text: the mean of a normal distribution of unit variance."""

    problem_type: ClassVar[str] = "regression"
    has_classes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """See `TaskKind.fits_labels`."""
        return label_names is None

    def fits_head(self, outputs: int) -> bool:
        """See `TaskKind.fits_head`."""
        return outputs == 1

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

    def predictions(self, logits: Array) -> Array:
        """See `TaskKind.predictions`; the score."""
        scores: Array = logits[:, 0]
        return scores

    def divergence(self, baseline: Array, model: Array) -> Array:
        """See `TaskKind.divergence`."""
        return gaussian_kl(baseline[:, 0], model[:, 0])

    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """See `TaskKind.noise`; the curvature is 1 everywhere."""
        return signs

    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """See `TaskKind.softened`; a score has no temperature."""
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `TaskKind.loss`; the mean squared error."""
        return mse_loss(logits.squeeze(-1), labels.to(logits))

    def distillation_loss(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """See `TaskKind.distillation_loss`; without temperature."""
        return mse_loss(student, teacher) / 2
