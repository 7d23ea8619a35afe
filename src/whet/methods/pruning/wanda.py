"""Pruning by weight times input: weights that contribute least to a layer's outputs on calibration data become zero.

The score of W_ji is |W_ji| · √E[x_i²]. Scores are compared within each output, which the publication found best: scores
of different outputs do not estimate the same quantity.

Source: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", 2023, arXiv
2306.11695.
Differs: padding tokens are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.methods.pruning._base import ScoredPruning
from whet.models.architecture import dense_weight
from whet.numerics.moments import Side

__all__ = ["Wanda"]


@dataclass(frozen=True, kw_only=True)
class Wanda(ScoredPruning):
    """Score each weight by its magnitude times that of its input, relative to the other weights of its output."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `ScoredPruning.scores`; one forward pass."""
        moments = collect_moments(
            model, require_calibration(resources), layers, sides=dict.fromkeys(layers, Side.INPUT)
        )
        for name in layers:
            weight = dense_weight(model.get_submodule(name))
            scores = weight.abs() * moments[name].second.diagonal().clamp_min(0).sqrt().to(weight)
            # ranks within an output, from 0 to 1: a threshold over the layer then prunes as many weights of each output
            yield name, scores.argsort(dim=1).argsort(dim=1).to(weight) / weight.shape[1]
