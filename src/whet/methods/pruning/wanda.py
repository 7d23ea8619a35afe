"""Pruning by weight times input: the weights go that add least to what a layer puts out on calibration data.

The score of W_ji is |W_ji| · √E[x_i²]. Scores are compared within each output, as the publication found best; over all
of a layer or of the model, they would be no estimates of one and the same thing.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", 2023, arXiv
2306.11695.
Differs: padding tokens are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.methods.pruning._base import Scored
from whet.models.architecture import dense_weight
from whet.numerics.moments import Side

__all__ = ["Wanda"]


@dataclass(frozen=True, kw_only=True)
class Wanda(Scored):
    """Score each weight by its magnitude times that of its input, against the others of its output."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `Scored.scores`; one forward pass."""
        moments = collect(model, calibrated(resources), layers, sides=dict.fromkeys(layers, Side.INPUT))
        for name in layers:
            weight = dense_weight(model.get_submodule(name))
            scores = weight.abs() * moments[name].second.diagonal().clamp_min(0).sqrt().to(weight)
            # ranks within an output, from 0 to 1: a threshold over the layer then takes as many of each
            yield name, scores.argsort(dim=1).argsort(dim=1).to(weight) / weight.shape[1]
