"""Pruning at random: what any other method must beat.

Source: the model-compression course of ITMO's AI Talent Hub, whose random row this is.
Differs: linear layers of the blocks alone; the course pruned the gains of layer norms too, which ruined its row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources
from whet.methods.pruning._base import Scored
from whet.models.architecture import dense_weight

__all__ = ["Random"]


@dataclass(frozen=True, kw_only=True)
class Random(Scored):
    """Score each weight by a random number."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `Scored.scores`; drawn from the seed of the resources."""
        generator = torch.Generator().manual_seed(resources.seed)
        for name in layers:
            weight = dense_weight(model.get_submodule(name))
            yield name, torch.rand(weight.shape, generator=generator).to(weight)
