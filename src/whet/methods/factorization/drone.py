"""Truncated SVD that minimises the error of a layer's outputs on calibration inputs.

Plain SVD minimises ‖W − W'‖; this method minimises E‖Wx − W'x‖² over the inputs x that reach the layer. With K = W C
Wᵀ, C = E[x xᵀ], the best W' of rank k is E_k E_kᵀ W, where E_k holds the k leading eigenvectors of K; no inverse is
needed. If W is taller than wide, the same eigenvectors come from the smaller matrix C^½ WᵀW C^½ with eigenvectors V and
eigenvalues σ²: E = W C^½ V / σ, and W' = W (C^½ V_k / σ_k)(V_kᵀ C^½ WᵀW / σ_k).

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, Algorithm
1.
Differs: the same optimum is computed in output space, so that rank-deficient inputs are no special case; padding tokens
are left out. As in the paper, moments are not centred; studies/first_light measures the effect of centring.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
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
        """See `Factorization.spectra`; one forward pass, O(d²) memory per layer with d its narrower side."""
        moments = collect_moments(model, require_calibration(resources), layers)
        for name in layers:
            yield name, output_pca(dense_weight(model.get_submodule(name)), moments.pop(name).second)
