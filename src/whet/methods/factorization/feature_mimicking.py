"""Truncated SVD that minimises the error of a layer's centred outputs; the bias corrects the mean.

With K = W Cov(x) Wᵀ and E_k its k leading eigenvectors, W' = E_k E_kᵀ W and b' = b + (I − E_k E_kᵀ) W E[x]. The error
on the calibration data is never above that of `drone`, which spends rank on the mean. The model is not always better:
on BERT-like encoders it was worse (studies/first_light).

Source: Yu, Wu, "Compressing Transformers: Features Are Low-Rank, but Weights Are Not!", AAAI 2023, doi
10.1609/aaai.v37i9.26304.
Differs: the narrower side of the layer is decomposed; ranks follow from the budget, as in every factorization here.
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
from whet.numerics.low_rank import Spectrum, covariance_of, output_pca

__all__ = ["FeatureMimicking"]


@dataclass(frozen=True, kw_only=True)
class FeatureMimicking(Factorization):
    """Factorise each linear layer in the metric of its centred calibration outputs."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    refits: ClassVar[Refit] = Refit.BOTH

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """See `Factorization.spectra`; one forward pass, O(d²) memory per layer with d its narrower side."""
        all_moments = collect_moments(model, require_calibration(resources), layers)
        for name in layers:
            moments = all_moments.pop(name)
            yield name, output_pca(dense_weight(model.get_submodule(name)), covariance_of(moments), moments.mean)
