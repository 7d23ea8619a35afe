"""Truncated SVD that minimises the cost of a layer's error in KL, from second moments of inputs and gradients.

To second order, replacing W by W' raises KL(baseline ‖ compressed) by ½ tr(G ΔW C ΔWᵀ), with C = E[x xᵀ] and G the
second moment of the gradient at the outputs. The optimum of rank k is G^{-½} [G^½ W C^½]_k C^{-½}. On the input side,
with B = E[Wᵀg (Wᵀg)ᵀ] and V_k the k leading eigenvectors of C^½ B C^½, this is W C^½ V_k V_kᵀ C^{-½}. On the output
side, with K = E[Wx (Wx)ᵀ] and E_k the k leading eigenvectors of G^½ K G^½, it is G^{-½} E_k E_kᵀ G^½ W. The loss is the
sum of the dropped eigenvalues; it has the same unit in all layers, so that layers can share a budget.

Source: Martens, Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015, arXiv
1503.05671, for the curvature; Chekalina et al., "Generalized Fisher-Weighted SVD", 2025, arXiv 2505.17974, for its use
in low rank.
Differs: only the narrower side is decomposed; C is centred and the bias corrects the mean; gradients need no labels,
and are taken from softened predictions (chosen on held-out training data, see studies/first_light).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.methods.factorization._base import Allocation, Factorization
from whet.models.architecture import dense_weight
from whet.numerics.linalg import RootAndInverse, root_and_inverse
from whet.numerics.low_rank import DAMPING, Spectrum, covariance_of, kfac_svd
from whet.numerics.moments import Side, narrower_side
from whet.utils.ranges import Damping, Temperature

__all__ = ["Kfac"]


@dataclass(frozen=True, kw_only=True)
class Kfac(Factorization):
    """Factorise each linear layer in the metric of the KL divergence from the baseline."""

    allocation: Allocation = "by_loss"
    """How to share the budget, as for every factorization; by_loss is the default here because the losses of all layers
    have the same unit."""
    damping: Damping = 1e-3
    """Damping added to the gradient moment, as a fraction of its mean eigenvalue, e.g. 0.001."""

    temperature: Temperature = 3.0
    """Temperature that softens the predictions before gradients are taken. A model is overconfident on its training
    text; at 1, the examples that it has memorised hardly count."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward and one backward pass over the calibration batches."""
        all_moments = collect_moments(
            model, require_calibration(resources), layers, seed=resources.seed, temperature=self.temperature
        )
        shared: dict[int, RootAndInverse] = {}
        for name in layers:
            weight, moments = dense_weight(model.get_submodule(name)), all_moments[name]
            second_moment_id = id(moments.second)
            if narrower_side(weight) is Side.INPUT and second_moment_id not in shared:
                shared = {second_moment_id: root_and_inverse(covariance_of(moments), damping=DAMPING)}
            yield name, kfac_svd(weight, moments, damping=self.damping, metric=shared.get(second_moment_id))
            del all_moments[name], moments
