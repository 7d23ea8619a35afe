"""Truncated SVD of the weights alone.

Minimises ‖W − W'‖ over W' of rank k: the k leading singular directions, whatever inputs the layer sees. With d the
narrower side of W, WᵀW or WWᵀ (d × d) gives them by one eigendecomposition.

Source: Eckart, Young, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936, doi
10.1007/BF02288367.
Differs: losses are relative to ‖W‖², so that layers of different scale can share a budget.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from whet.architecture import dense_weight
from whet.factorization import Factorization, Spectrum
from whet.linalg import leading, tail
from whet.resources import Resources
from whet.statistics import Side, side_of

__all__ = ["Svd", "spectrum"]


def spectrum(weight: Tensor) -> Spectrum:
    """Return the decomposition that minimises ‖W − W'‖ at every rank.

    Args:
        weight: (out, in), any float dtype; computed in float64.
    """
    dense = weight.double()
    energies, vectors = leading(dense.T @ dense if side_of(weight) is Side.INPUT else dense @ dense.T)
    return Spectrum(vectors, vectors.T, tail(energies, relative=True))


@dataclass(frozen=True, kw_only=True)
class Svd(Factorization):
    """Factorise each linear layer by its own singular values, without data."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`."""
        for name in layers:
            yield name, spectrum(dense_weight(model.get_submodule(name)))
