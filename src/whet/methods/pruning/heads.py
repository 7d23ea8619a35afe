"""Fewer attention heads, where those that stay make up for those that go.

Heads go one by one, each time the one that costs least in KL once the others have taken over what they can of it: with
C the covariance of what all heads put out, G the second moment of the gradient at the outputs of W, which reads it, and
S the features of a head, that cost is ½ tr(W_Sᵀ G W_S [C⁻¹]_SS⁻¹). Query, key and value lose the rows of the head. The
sum of costs is in one unit for all layers, so that attentions can share a budget; blocks then have different numbers of
heads. The bias makes up for the mean.

Source: Kurtic, Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv
2302.04089.
Differs: errors are weighed by the gradient, which makes layers comparable; C is centred; every attention keeps a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources
from whet.methods.pruning._structured import FeatureGroup, StructuredPruning
from whet.models.attention import KeptHead, SelfAttention, narrowed_attention

__all__ = ["Heads"]


@dataclass(frozen=True, kw_only=True)
class Heads(StructuredPruning):
    """Give the attentions of encoders fewer heads."""

    def places(self, model: nn.Module, resources: Resources) -> Sequence[SelfAttention]:
        """See `StructuredPruning.places`."""
        return SelfAttention.all_of(model, self.include)

    def grid(self, groups: int) -> list[int]:
        """See `StructuredPruning.grid`."""
        return list(range(1, groups + 1))

    def shrink(self, model: nn.Module, part: FeatureGroup, kept: Tensor) -> None:
        """See `StructuredPruning.shrink`."""
        place = part.place
        assert isinstance(place, SelfAttention)
        features = (kept[:, None] * place.width + torch.arange(place.width, device=kept.device)).flatten()
        heads = [KeptHead.whole(head, place.width) for head in kept.tolist()]
        narrowed_attention(model, place, heads, *part.reader.fitted(features)).put(model, place)
