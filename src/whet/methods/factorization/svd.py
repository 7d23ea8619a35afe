"""Truncated SVD of the weights alone.

It minimises ‖W − W'‖ over W' of rank k; the optimum keeps the k leading singular directions, whatever inputs the layer
sees. With d the narrower side of W, one eigendecomposition of WᵀW or WWᵀ (d × d) gives these directions.

Source: Eckart, Young, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936, doi
10.1007/BF02288367.
Differs: losses are relative to ‖W‖², so that layers of different scales can share a budget.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from whet.calibration.resources import Resources
from whet.methods.factorization._base import Factorization
from whet.models.architecture import dense_weight
from whet.numerics.low_rank import Spectrum, svd_of_weight

__all__ = ["Svd"]


@dataclass(frozen=True, kw_only=True)
class Svd(Factorization):
    """Factorise each linear layer by its singular value decomposition, without data."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`."""
        for name in layers:
            yield name, svd_of_weight(dense_weight(model.get_submodule(name)))
