"""Truncated SVD that minimises the error of a layer's outputs on calibration inputs.

Plain SVD minimises ‖W − W'‖; this minimises E‖Wx − W'x‖² over the inputs x that reach the layer. With K = W E[x xᵀ] Wᵀ
the best W' of rank k is E_k E_kᵀ W, where E_k holds the k leading eigenvectors of K: no inverse is needed. Where W is
taller than wide, the same eigenvectors come from the smaller C^½ WᵀW C^½, C = E[x xᵀ]: E = W C^½ V / σ, so that W' = W
(C^½ V_k / σ_k)(V_kᵀ C^½ WᵀW / σ_k).

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, Algorithm
1.
Differs: the same optimum in output space, defined for rank-deficient inputs too; padding tokens are left out. Moments
are not centred, as in the paper; see studies/first_light for what centring does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from whet.architecture import dense_weight
from whet.factorization import Factorization, Spectrum, calibrated
from whet.linalg import leading, square_root, tail
from whet.resources import Resources
from whet.statistics import Side, collect, side_of

__all__ = ["Drone", "spectrum"]


def spectrum(weight: Tensor, second: Tensor) -> Spectrum:
    """Return the decomposition that minimises E‖Wx − W'x‖² at every rank.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        second: (d, d) second moment on the narrower side: E[x xᵀ] of the input, or E[Wx (Wx)ᵀ] of the output.
    """
    if side_of(weight) is Side.OUTPUT:
        energies, vectors = leading(second)
        return Spectrum(vectors, vectors.T, tail(energies, relative=True))
    dense = weight.double()
    gram = dense.T @ dense
    root = square_root(second)
    energies, vectors = leading(root @ gram @ root)
    # directions without energy are cut off: dividing by their sigma would only scale rounding errors
    inverse = torch.where(energies > energies[0] * 1e-14, energies.rsqrt(), 0)
    p = root @ vectors * inverse
    return Spectrum(p, p.T @ gram, tail(energies, relative=True))


@dataclass(frozen=True, kw_only=True)
class Drone(Factorization):
    """Factorise each linear layer in the metric of its calibration outputs."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward pass, O(d²) memory a layer, d its narrower side."""
        moments = collect(model, calibrated(resources), layers)
        for name in layers:
            yield name, spectrum(dense_weight(model.get_submodule(name)), moments.pop(name).second)
