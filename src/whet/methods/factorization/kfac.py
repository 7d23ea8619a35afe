"""Truncated SVD that minimises what a layer's error costs in KL, by second moments of inputs and gradients.

To second order, replacing W by W' raises KL(original ‖ compressed) by ½ tr(G ΔW C ΔWᵀ), with C = E[x xᵀ] and G the
second moment of the gradient at the outputs. The optimum of rank k is G^{-½} [G^½ W C^½]_k C^{-½}. On the input side,
with B = E[Wᵀg (Wᵀg)ᵀ] and V_k the k leading eigenvectors of C^½ B C^½, it is W C^½ V_k V_kᵀ C^{-½}; on the output side,
with K = E[Wx (Wx)ᵀ] and E_k those of G^½ K G^½, it is G^{-½} E_k E_kᵀ G^½ W. The tail of the eigenvalues is the loss,
in one unit for all layers, so that layers can share a budget.

Source: Martens, Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015, arXiv
1503.05671, for the curvature; Chekalina et al., "Generalized Fisher-Weighted SVD", 2025, arXiv 2505.17974, for its use
in low rank.
Differs: only the narrower side is decomposed; C is centred and the bias makes up for the mean; gradients need no
labels, and start from softened predictions (chosen on held-out training data, see studies/first_light).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.methods.factorization._base import Allocation, Factorization
from whet.models.architecture import dense_weight
from whet.numerics.linalg import Roots, roots
from whet.numerics.low_rank import DAMPING, Spectrum, centred, kfac_svd
from whet.numerics.moments import Side, side_of

__all__ = ["Kfac"]


@dataclass(frozen=True, kw_only=True)
class Kfac(Factorization):
    """Factorise each linear layer in the metric of the model's own loss."""

    allocation: Allocation = "by_loss"
    """See `Factorization`; losses are comparable between layers here, so that they may share one budget."""
    damping: Annotated[float, Interval(gt=0)] = 1e-3
    """Added to the gradient moment, as a share of its mean eigenvalue."""

    temperature: Annotated[float, Interval(gt=0, lt=math.inf)] = 3.0
    """Softens the predictions that gradients start from. A model is surer of its training text than of any other; at 1
    the examples that it has learnt by heart would hardly count."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward and one backward pass over the calibration batches."""
        moments = collect(model, calibrated(resources), layers, seed=resources.seed, temperature=self.temperature)
        shared: dict[int, Roots] = {}
        for name in layers:
            weight, found = dense_weight(model.get_submodule(name)), moments[name]
            key = id(found.second)
            if side_of(weight) is Side.INPUT and key not in shared:
                shared = {key: roots(centred(found), damping=DAMPING)}
            yield name, kfac_svd(weight, found, damping=self.damping, metric=shared.get(key))
            del moments[name], found
