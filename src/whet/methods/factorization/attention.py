"""Narrower attention heads: query and key shrink together, as do value and output, into smaller projections.

For a head with scores qᵀk, the best scores of rank k over all pairs of calibration tokens are (Pᵀq)ᵀ(Q k) with P =
C_q^{-½} U_k S_k^½ and Q = S_k^½ V_kᵀ C_k^{-½}, from the SVD U S Vᵀ of C_q^½ C_k^½ with C_q = E[q qᵀ] and C_k = Cov(k).
The keys are centred because softmax ignores a constant that is added to all of them. The output of a head, W_o (Σ
weights · v), is reduced as in `feature_mimicking`, on the head's columns of W_o. With `metric="kl"`, errors are
weighted as in `kfac`, by the gradients at keys and head outputs, so that all heads can share one budget. No matrix
product is added, and the products of the scores shrink too.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, for the
attention; Lin et al., "MoDeGPT: Modular Decomposition for Large Language Model Compression", 2024, arXiv 2408.09632,
for value and output.
Differs: factors are merged into the projections instead of added beside them; keys are centred; output errors are
measured after attention has mixed the values, instead of on the values of single tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources, require_calibration, require_tokens
from whet.methods.factorization._attention import AttentionMethod
from whet.models.architecture import dense_bias, dense_weight
from whet.models.attention import HeadWidths, SelfAttention, attention_at_widths
from whet.numerics.allocation import LayerOptions, allocate
from whet.numerics.linalg import diagonal_blocks, root_and_inverse, tail_energy
from whet.numerics.low_rank import DAMPING, Spectrum, covariance_of, output_pca, svd_of_kl
from whet.numerics.moments import Moments, Side

__all__ = ["NarrowAttention", "score_projections"]

WIDTHS = 8
"""Number of evenly spaced widths that each head can take."""


class HeadSpectra(NamedTuple):
    """The spectra of all heads of one attention."""

    scores: list[Spectrum]
    """One per head, for the projections between query and key."""
    values: list[Spectrum]
    """One per head, for the projections between value and output."""


@dataclass(frozen=True, kw_only=True)
class NarrowAttention(AttentionMethod):
    """Reduce the number of features of every attention head."""

    def compress(self, model: nn.Module, locations: Sequence[SelfAttention], resources: Resources) -> nn.Module:
        """See `KeepsShare.compress`."""
        sides = {name: Side.OUTPUT for attention in locations for name in (attention.query, attention.key)}
        sides |= {attention.output: Side.INPUT for attention in locations}
        require_tokens(require_calibration(resources), locations[0].width, what="a head has features")
        moments = self.moments(model, resources, sides)
        spectra = {attention: self._heads(model, attention, moments) for attention in locations}
        for attention, widths in self._widths(spectra).items():
            if widths != HeadWidths(attention.width, attention.width):
                attention_at_widths(model, attention, *spectra[attention], widths).put(model, attention)
        return model

    def _heads(self, model: nn.Module, attention: SelfAttention, moments: Mapping[str, Moments]) -> HeadSpectra:
        keys, outputs, width = moments[attention.key], moments[attention.output], attention.width
        key_moments, output_moments = (diagonal_blocks(covariance_of(moment), width) for moment in (keys, outputs))
        means = outputs.mean.split(width)
        if self.metric == "outputs":
            query, output = (model.get_submodule(name) for name in (attention.query, attention.output))
            query_moments = diagonal_blocks(_with_bias(moments[attention.query], dense_bias(query)), width)
            weights = dense_weight(output).split(width, dim=1)
            scores = [score_projections(*head) for head in zip(query_moments, key_moments, strict=True)]
            values = [output_pca(*head) for head in zip(weights, output_moments, means, strict=True)]
            return HeadSpectra(scores, values)
        assert keys.gradient is not None and outputs.gradient is not None
        key_gradients, output_gradients = (
            diagonal_blocks(gradient, width) for gradient in (keys.gradient, outputs.gradient)
        )
        scores = [svd_of_kl(*head) for head in zip(key_moments, key_gradients, strict=True)]
        values = [svd_of_kl(*head) for head in zip(output_moments, output_gradients, means, strict=True)]
        return HeadSpectra(scores, values)

    def _widths(self, spectra: Mapping[SelfAttention, HeadSpectra]) -> dict[SelfAttention, HeadWidths]:
        """Return the widths of scores and values, which share one budget; a step costs as much in either of them."""
        grids: dict[SelfAttention, list[int]] = {}
        options: dict[str, LayerOptions] = {}
        for attention, head_spectra in spectra.items():
            step = max(1, attention.width // WIDTHS)
            grids[attention] = grid = [*range(step, attention.width, step), attention.width]
            for part, part_spectra in head_spectra._asdict().items():
                losses = torch.stack([spectrum.losses[grid] for spectrum in part_spectra]).sum(0).cpu().numpy()
                options[f"{attention.name} {part}"] = LayerOptions(
                    len(part_spectra) * np.asarray(grid, dtype=float), losses
                )
        chosen = allocate(options, self.keep, spread=self.allocation == "by_loss")
        return {
            attention: HeadWidths(*(grid[chosen[f"{attention.name} {part}"]] for part in HeadSpectra._fields))
            for attention, grid in grids.items()
        }


def score_projections(queries: Tensor, keys: Tensor) -> Spectrum:
    """Return the projections of queries and keys that minimise E (qᵀk − qᵀ P Q k)² at every rank.

    Args:
        queries: (d, d) float64, the second moment E[q qᵀ].
        keys: (d, d) float64, the second moment of the keys, or their covariance.
    """
    query, key = root_and_inverse(queries, damping=DAMPING), root_and_inverse(keys, damping=DAMPING)
    u, s, vt = torch.linalg.svd(query.root.T @ key.root)
    p, q = query.inverse.T @ u * s.sqrt(), s.sqrt()[:, None] * vt @ key.inverse
    return Spectrum(p, q, tail_energy(s**2, relative=True))


def _with_bias(moments: Moments, bias: Tensor | None) -> Tensor:
    """Return (d, d) E[y yᵀ] of y = z + b, from the moments of z."""
    if bias is None:
        return moments.second
    constant = bias.double()
    cross = moments.mean.outer(constant)
    return moments.second + cross + cross.T + constant.outer(constant)
