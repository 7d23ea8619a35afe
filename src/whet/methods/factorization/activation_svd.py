"""Truncated SVD of the weights, with each input feature weighted by its mean magnitude on calibration data.

It minimises ‖(W − W') S‖ with S = diag(E|x|)^α; the optimum is the best rank-k part of W S, times S⁻¹. It weighs each
feature alone, while `drone` also uses the correlations between features.

Source: Yuan, Shang, Song, Wu, Yan, Sun, "ASVD: Activation-aware Singular Value Decomposition for Compressing Large
Language Models", 2023, arXiv 2312.05821.
Differs: an exact decomposition instead of a randomised one; padding tokens are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import nn

from whet.calibration.importance import activation_magnitudes, clamp_importance
from whet.calibration.resources import Resources, require_calibration
from whet.methods.factorization._base import Factorization
from whet.models.architecture import dense_weight
from whet.numerics.low_rank import Spectrum, svd_of_scaled_weight

__all__ = ["ActivationSvd"]


@dataclass(frozen=True, kw_only=True)
class ActivationSvd(Factorization):
    """Factorise each linear layer with its input features weighted by their mean magnitude."""

    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Exponent of the magnitudes; 0 gives plain SVD."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward pass, O(in) memory per layer."""
        mean_magnitudes = activation_magnitudes(model, require_calibration(resources), layers)
        for name in layers:
            yield (
                name,
                svd_of_scaled_weight(
                    dense_weight(model.get_submodule(name)), clamp_importance(mean_magnitudes[name]) ** self.alpha
                ),
            )
