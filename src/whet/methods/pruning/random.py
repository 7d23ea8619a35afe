"""Random pruning: the baseline that every other pruning method must beat.

Source: the random baseline of the model-compression course of ITMO's AI Talent Hub.
Differs: only the linear layers of the blocks are pruned; the course also pruned the gains of layer norms, which ruined
its result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources
from whet.methods.pruning._base import ScoredPruning
from whet.models.architecture import dense_weight

__all__ = ["Random"]


@dataclass(frozen=True, kw_only=True)
class Random(ScoredPruning):
    """Score each weight by a random number."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `ScoredPruning.scores`; the scores are drawn with the seed of the resources."""
        generator = torch.Generator().manual_seed(resources.seed)
        for name in layers:
            weight = dense_weight(model.get_submodule(name))
            yield name, torch.rand(weight.shape, generator=generator).to(weight)
