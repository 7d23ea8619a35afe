"""Fewer feed-forward neurons: the remaining neurons compensate for the removed ones.

Neurons are removed one by one, each time the neuron whose removal costs least in KL after the remaining neurons
compensate for it. With C the covariance of the neurons and G the second moment of the gradient at the outputs of the
layer W that reads them, this cost is ½ (wⱼᵀ G wⱼ) / [C⁻¹]ⱼⱼ. The summed cost has the same unit in all layers, so that
all layers share one budget. The bias corrects the mean. Nothing is trained, and no matrix product is added.

Source: Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992; Kurtic,
Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv 2302.04089, for
removing whole structures with it.
Differs: errors are weighted by the gradient, which makes layers comparable; C is centred; neurons are removed in
blocks, in the same order as one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.resources import Resources, require_calibration
from whet.methods.pruning._structured import FeatureGroup, StructuredPruning
from whet.models.feed_forward import FeedForward

__all__ = ["Neurons"]


@dataclass(frozen=True, kw_only=True)
class Neurons(StructuredPruning):
    """Remove neurons from the feed-forward part of each block."""

    multiple_of: Annotated[int, Interval(ge=1, le=1_000_000)] = 16
    """Round the numbers of neurons to a multiple of this, e.g. 16; processors run such sizes faster."""

    def locations(self, model: nn.Module, resources: Resources) -> Sequence[FeedForward]:
        """See `KeepsShare.locations`."""
        return FeedForward.all_of(model, self.include, require_calibration(resources))

    def grid(self, groups: int) -> list[int]:
        """See `StructuredPruning.grid`."""
        return [*range(self.multiple_of, groups, self.multiple_of), groups]

    def shrink(self, model: nn.Module, part: FeatureGroup, kept: Tensor) -> None:
        """See `StructuredPruning.shrink`."""
        assert isinstance(part.location, FeedForward)
        part.location.keep(model, kept, *part.reader.fitted(kept))
