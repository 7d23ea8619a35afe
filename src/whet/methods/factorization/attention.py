"""Narrower attention heads: query and key reduced together, and value and output, merged into smaller projections.

For a head with scores qᵀk, the best scores of rank k over all pairs of calibration tokens are (Pᵀq)ᵀ(Q k) with P =
C_q^{-½} U_k S_k^½ and Q = S_k^½ V_kᵀ C_k^{-½}, from the SVD U S Vᵀ of C_q^½ C_k^½ with C_q = E[q qᵀ] and C_k = Cov(k):
softmax does not see what is added to all keys. For what a head puts out, W_o (Σ weights · v), it is `feature_mimicking`
on its part of W_o. The other metric weighs errors as `kfac` does, by the gradient that reaches keys and head outputs,
so that all of them can share one budget. No product is added, and the scores' products shrink too.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, for the
attention; Lin et al., "MoDeGPT: Modular Decomposition for Large Language Model Compression", 2024, arXiv 2408.09632,
for value and output.
Differs: factors are merged into the projections instead of added beside them; keys are centred; outputs are weighed as
attention has mixed them, instead of one token's values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources, calibrated, require_tokens
from whet.methods.factorization._attention import AttentionMethod
from whet.models.architecture import dense_bias, dense_weight
from whet.models.attention import SelfAttention, Widths, reduced_attention
from whet.numerics.allocation import Options, shared_out
from whet.numerics.linalg import diagonal_blocks, roots, tail_energy
from whet.numerics.low_rank import DAMPING, Spectrum, centred, output_pca, svd_of_kl
from whet.numerics.moments import Moments, Side

__all__ = ["Attention", "of_scores"]

WIDTHS = 8
"""Widths offered for each head, in even steps."""


class Heads(NamedTuple):
    """The projections of all heads of one attention."""

    scores: list[Spectrum]
    """Between query and key."""
    values: list[Spectrum]
    """Between value and output."""


@dataclass(frozen=True, kw_only=True)
class Attention(AttentionMethod):
    """Give the heads of encoders fewer features."""

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        places = SelfAttention.all_of(model, self.include)
        if self.keep == 1:
            return model
        sides = {name: Side.OUTPUT for place in places for name in (place.query, place.key)}
        sides |= {place.output: Side.INPUT for place in places}
        require_tokens(calibrated(resources), places[0].width, what="a head has features")
        moments = self.moments(model, resources, sides)
        found = {place: self._heads(model, place, moments) for place in places}
        for place, widths in self._widths(found).items():
            if widths != Widths(place.width, place.width):
                reduced_attention(model, place, *found[place], widths).put(model, place)
        return model

    def _heads(self, model: nn.Module, place: SelfAttention, moments: Mapping[str, Moments]) -> Heads:
        keys, outputs, width = moments[place.key], moments[place.output], place.width
        of_keys, of_mixed = (diagonal_blocks(centred(one), width) for one in (keys, outputs))
        means = outputs.mean.split(width)
        if self.metric == "outputs":
            query, output = (model.get_submodule(name) for name in (place.query, place.output))
            of_queries = diagonal_blocks(_with_bias(moments[place.query], dense_bias(query)), width)
            weights = dense_weight(output).split(width, dim=1)
            scores = [of_scores(*one) for one in zip(of_queries, of_keys, strict=True)]
            values = [output_pca(*one) for one in zip(weights, of_mixed, means, strict=True)]
            return Heads(scores, values)
        assert keys.gradient is not None and outputs.gradient is not None
        at_keys, at_mixed = (diagonal_blocks(gradient, width) for gradient in (keys.gradient, outputs.gradient))
        scores = [svd_of_kl(*one) for one in zip(of_keys, at_keys, strict=True)]
        values = [svd_of_kl(*one) for one in zip(of_mixed, at_mixed, means, strict=True)]
        return Heads(scores, values)

    def _widths(self, found: Mapping[SelfAttention, Heads]) -> dict[SelfAttention, Widths]:
        """Scores and values compete for one budget of parameters; a step of either costs the same in all of them."""
        grids: dict[SelfAttention, list[int]] = {}
        options: dict[str, Options] = {}
        for place, heads in found.items():
            step = max(1, place.width // WIDTHS)
            grids[place] = grid = [*range(step, place.width, step), place.width]
            for part, spectra in heads._asdict().items():
                losses = torch.stack([one.losses[grid] for one in spectra]).sum(0).cpu().numpy()
                options[f"{place.name} {part}"] = Options(len(spectra) * np.asarray(grid, dtype=float), losses)
        chosen = shared_out(options, self.keep, spread=self.allocation == "by_loss")
        return {
            place: Widths(*(grid[chosen[f"{place.name} {part}"]] for part in Heads._fields))
            for place, grid in grids.items()
        }


def of_scores(queries: Tensor, keys: Tensor) -> Spectrum:
    """Return the projections between queries and keys that minimise E (qᵀk − qᵀ P Q k)² at every rank.

    Args:
        queries: (d, d) E[q qᵀ].
        keys: (d, d) second moment of the keys, or their covariance.
    """
    of_query, of_key = roots(queries, damping=DAMPING), roots(keys, damping=DAMPING)
    u, s, vt = torch.linalg.svd(of_query.root.T @ of_key.root)
    p, q = of_query.inverse.T @ u * s.sqrt(), s.sqrt()[:, None] * vt @ of_key.inverse
    return Spectrum(p, q, tail_energy(s**2, relative=True))


def _with_bias(moments: Moments, bias: Tensor | None) -> Tensor:
    """(d, d) E[y yᵀ] of y = z + b."""
    if bias is None:
        return moments.second
    constant = bias.double()
    cross = moments.mean.outer(constant)
    return moments.second + cross + cross.T + constant.outer(constant)
