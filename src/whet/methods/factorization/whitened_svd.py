"""Truncated SVD of the weights in the space in which the calibration inputs are white.

It minimises E‖(W − W')x‖² like `drone`: with S Sᵀ = C = E[x xᵀ], the optimum is the best rank-k part of W S, times S⁻¹.
S must be invertible, so that λ is added to the eigenvalues of C. On the input side S is a square root of C + λI; on the
output side the same W' comes from the leading eigenvectors of W(C + λI)Wᵀ = E[Wx (Wx)ᵀ] + λWWᵀ. As λ grows, the method
becomes plain SVD.

Source: Wang, Zheng, Wan, Zhang, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model
Compression", 2024, arXiv 2403.07378.
Differs: only the narrower side is decomposed; λ is relative to the scale of the inputs instead of absolute; padding
tokens are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.methods.factorization._base import Factorization
from whet.models.architecture import dense_weight
from whet.numerics.linalg import root_and_inverse
from whet.numerics.low_rank import Spectrum, output_pca, svd_in_metric
from whet.numerics.moments import Side, narrower_side
from whet.utils.ranges import Damping

__all__ = ["WhitenedSvd", "whitened_spectrum"]


def whitened_spectrum(weight: Tensor, second: Tensor, *, damping: float) -> Spectrum:
    """Return the spectrum that minimises tr(ΔW (C + λI) ΔWᵀ) at every rank.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        second: (d, d) second moment on the narrower side: C of the input, or WCWᵀ of the output.
        damping: λ as a fraction of the mean eigenvalue of C; on the output side, of its estimate tr(WCWᵀ) / tr(WWᵀ).
    """
    dense = weight.double()
    if narrower_side(weight) is Side.INPUT:
        return svd_in_metric(weight, root_and_inverse(second, damping=damping), dense.T @ dense)
    gram = dense @ dense.T
    scale = second.trace() / gram.trace() if gram.trace() > 0 else 0
    return output_pca(weight, second + damping * scale * gram)


@dataclass(frozen=True, kw_only=True)
class WhitenedSvd(Factorization):
    """Factorise each linear layer by SVD after whitening its calibration inputs."""

    damping: Damping = 1e-6
    """Damping added to the second moment of the inputs, as a fraction of its mean eigenvalue, e.g. 1e-6."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward pass, O(d²) memory per layer with d its narrower side."""
        moments = collect_moments(model, require_calibration(resources), layers)
        for name in layers:
            weight = dense_weight(model.get_submodule(name))
            yield name, whitened_spectrum(weight, moments.pop(name).second, damping=self.damping)
