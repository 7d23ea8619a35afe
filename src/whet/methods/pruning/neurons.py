"""Fewer neurons between the layers of feed-forward parts, where those that stay make up for those that go.

Neurons go one by one, each time the one that costs least in KL once the others have taken over what they can of it:
with C the covariance of the neurons and G the second moment of the gradient at the outputs of W, which reads them, that
cost is ½ (wⱼᵀ G wⱼ) / [C⁻¹]ⱼⱼ. Its sum is the loss of every number of neurons, in one unit for all layers, so that
layers can share a budget. The bias makes up for the mean. Nothing is trained, and no product is added.

Source: Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992; Kurtic,
Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv 2302.04089, for
removing whole structures with it.
Differs: errors are weighed by the gradient, which makes layers comparable; C is centred; neurons go in blocks that give
the order of single steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.resources import Resources, calibrated
from whet.methods.pruning._parts import keep_neurons
from whet.methods.pruning._structured import FeatureGroup, StructuredPruning
from whet.models.feed_forward import FeedForward

__all__ = ["Neurons"]


@dataclass(frozen=True, kw_only=True)
class Neurons(StructuredPruning):
    """Give the feed-forward parts of each block fewer neurons."""

    multiple_of: Annotated[int, Interval(ge=1)] = 16
    """The numbers of neurons are multiples of this, which processors are faster with."""

    def places(self, model: nn.Module, resources: Resources) -> Sequence[FeedForward]:
        """See `StructuredPruning.places`."""
        return FeedForward.all_of(model, self.include, calibrated(resources))

    def grid(self, groups: int) -> list[int]:
        """See `StructuredPruning.grid`."""
        return [*range(self.multiple_of, groups, self.multiple_of), groups]

    def shrink(self, model: nn.Module, part: FeatureGroup, kept: Tensor) -> None:
        """See `StructuredPruning.shrink`."""
        assert isinstance(part.place, FeedForward)
        keep_neurons(model, part.place, part.reader, kept)
