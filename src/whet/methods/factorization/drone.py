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

from torch import nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.methods.factorization._base import Factorization
from whet.methods.factorization._refit import Refit
from whet.models.architecture import dense_weight
from whet.numerics.low_rank import Spectrum, output_pca

__all__ = ["Drone"]


@dataclass(frozen=True, kw_only=True)
class Drone(Factorization):
    """Factorise each linear layer in the metric of its calibration outputs."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    refits: ClassVar[Refit] = Refit.BOTH

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward pass, O(d²) memory a layer, d its narrower side."""
        moments = collect(model, calibrated(resources), layers)
        for name in layers:
            yield name, output_pca(dense_weight(model.get_submodule(name)), moments.pop(name).second)
