"""Fewer attention heads: the remaining heads compensate for the removed ones.

Heads are removed one by one, each time the head whose removal costs least in KL after the remaining heads compensate
for it. With C the covariance of the outputs of all heads, G the second moment of the gradient at the outputs of the
projection W that reads them, and S the features of a head, this cost is ½ tr(W_Sᵀ G W_S [C⁻¹]_SS⁻¹). Query, key and
value lose the rows of the head, and the bias corrects the mean. The summed cost has the same unit in all layers, so
that all attentions share one budget; blocks then keep different numbers of heads. Heads that share a key and a value
leave together.

Source: Kurtic, Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv
2302.04089.
Differs: errors are weighted by the gradient, which makes layers comparable; C is centred; every attention keeps at
least one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources, require_calibration
from whet.methods.pruning._structured import FeatureGroup, StructuredPruning
from whet.models.attention import SelfAttention
from whet.models.head_groups import HeadGroups, attentions_with_heads

__all__ = ["Heads"]


@dataclass(frozen=True, kw_only=True)
class Heads(StructuredPruning):
    """Remove attention heads."""

    # of heads that share keys, half may be the fewest
    example: ClassVar[dict[str, Any]] = {"keep": 0.6}

    def locations(self, model: nn.Module, resources: Resources) -> Sequence[SelfAttention] | Sequence[HeadGroups]:
        """See `KeepsShare.locations`."""
        return attentions_with_heads(model, self.include, require_calibration(resources))

    def grid(self, groups: int) -> list[int]:
        """See `StructuredPruning.grid`."""
        return list(range(1, groups + 1))

    def shrink(self, model: nn.Module, part: FeatureGroup, kept: Tensor) -> None:
        """See `StructuredPruning.shrink`."""
        attention = part.location
        assert isinstance(attention, SelfAttention | HeadGroups)
        features = (kept[:, None] * attention.width + torch.arange(attention.width, device=kept.device)).flatten()
        attention.keep(model, kept, *part.reader.fitted(features))
