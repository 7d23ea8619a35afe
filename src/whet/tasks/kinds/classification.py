"""Classification: each text is of one class, and the head has one output per class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from whet.errors import InvalidData
from whet.numerics.divergence import categorical_kl
from whet.tasks.files import class_indices
from whet.tasks.kinds.base import TaskKind
from whet.tasks.pairing import Pairing, pair_classes

__all__ = ["Classification"]

Array = np.ndarray[Any, Any]


class Classification(TaskKind):
    """One class per text; logits are those of a categorical distribution."""

    problem_type: ClassVar[str] = "single_label_classification"
    has_classes: ClassVar[bool] = True

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """See `TaskKind.fits_labels`."""
        return label_names is not None

    def fits_head(self, outputs: int) -> bool:
        """See `TaskKind.fits_head`."""
        return outputs != 1

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return tuple(label_names or ())

    def label_names(self, head: Mapping[int, str]) -> tuple[str, ...]:
        """See `TaskKind.label_names`."""
        return tuple(head.values())

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """See `TaskKind.pairing`."""
        return pair_classes(head, self.output_names(label_names), ordered=ordered, label_map=label_map)

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[int]:
        """See `TaskKind.read_labels`."""
        return class_indices(raw, label_names or (), source=source)

    def check_labels(self, labels: Sequence[float], *, source: str) -> None:
        """See `TaskKind.check_labels`."""
        if len(set(labels)) < 2:
            raise InvalidData(
                f"the {source} must hold at least two classes, but got one only; give data with examples of every class"
            )

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> list[int]:
        """See `TaskKind.renumbered`."""
        return [order[int(label)] for label in labels]

    def predictions(self, logits: Array) -> Array:
        """See `TaskKind.predictions`; the class of the largest logit."""
        predicted: Array = logits.argmax(-1)
        return predicted

    def divergence(self, baseline: Array, model: Array) -> Array:
        """See `TaskKind.divergence`."""
        return categorical_kl(baseline, model)

    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """See `TaskKind.noise`; its covariance is diag(p) − p pᵀ."""
        p = logits.detach().softmax(-1)
        noise = p.sqrt() * signs
        return noise - p * noise.sum(-1, keepdim=True)

    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """See `TaskKind.softened`."""
        return logits / temperature

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `TaskKind.loss`; the cross-entropy."""
        return cross_entropy(logits, labels)

    def distillation_loss(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """See `TaskKind.distillation_loss`."""
        p, q = ((logits / temperature).flatten(0, -2).log_softmax(-1) for logits in (teacher, student))
        return kl_div(q, p, log_target=True, reduction="batchmean") * temperature**2
