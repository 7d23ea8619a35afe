"""Pruning by magnitude: the weights of least absolute value are set to zero.

The score of W_ji is |W_ji|; no data is needed.

Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
arXiv 1506.02626.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from whet.calibration.resources import Resources
from whet.methods.pruning._base import ScoredPruning
from whet.models.architecture import dense_weight

__all__ = ["Magnitude"]


@dataclass(frozen=True, kw_only=True)
class Magnitude(ScoredPruning):
    """Score each weight by its absolute value."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def scores(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `ScoredPruning.scores`."""
        for name in layers:
            yield name, dense_weight(model.get_submodule(name)).abs()
