"""Truncated SVD of the weights, with each input feature weighted by the Fisher information of its weights.

It minimises ‖(W − W') S‖ with S = diag(Σ_j F_ji)^½, F_ji = E[(∂L/∂W_ji)²]; the optimum is the best rank-k part of W S,
times S⁻¹. The closed form needs one importance for each input feature, so that the Fisher information is summed over
the feature's weights.

Source: Hsu, Hua, Chang, Lou, Shen, Jin, "Language model compression with weighted low-rank factorization", ICLR 2022,
arXiv 2207.00112.
Differs: gradients are taken per example, and from the model's own predictions instead of labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from whet.calibration.importance import clamp_importance, fisher_importance
from whet.calibration.resources import Resources, require_calibration
from whet.methods.factorization._base import Factorization
from whet.models.architecture import dense_weight
from whet.numerics.low_rank import Spectrum, svd_of_scaled_weight

__all__ = ["FisherSvd"]


@dataclass(frozen=True, kw_only=True)
class FisherSvd(Factorization):
    """Factorise each linear layer with its input features weighted by their Fisher information."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward and one backward pass, O(in) memory per layer."""
        fisher = fisher_importance(model, require_calibration(resources), layers, seed=resources.seed)
        for name in layers:
            yield (
                name,
                svd_of_scaled_weight(dense_weight(model.get_submodule(name)), clamp_importance(fisher[name]).sqrt()),
            )
