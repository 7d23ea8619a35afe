"""Joint factorization of query, key and value: one thin layer, computed once, feeds all three.

The three weights are stacked into one weight of (3·out, in), which is factorised as in `kfac` or `feature_mimicking`:
W ≈ W P_k Q_k, with the shared layer Q_k and one outer factor W_i P_k for each of the three. Three separate
factorizations of rank k hold k·6d weights in six products; the joint one holds k·4d in four, so that the same budget
affords 1.5 times the rank.

Source: the idea is common knowledge about low rank in attention; the optimum is that of `kfac` and `feature_mimicking`
for the stacked weights.
Differs: the gradient moments of the three are summed, so that each counts by the cost of its error in KL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources, require_calibration, require_tokens
from whet.methods._candidates import Candidate
from whet.methods.factorization._attention import AttentionMethod
from whet.methods.factorization._base import largest_rank
from whet.models.attention import SelfAttention, attention_with_shared_input, stack_projections
from whet.models.surgery import replace_module
from whet.numerics.allocation import allocate
from whet.numerics.low_rank import Spectrum, covariance_of, output_pca, svd_of_kl
from whet.numerics.moments import Moments, Side
from whet.utils.ranges import Keep

__all__ = ["SharedQkv", "stacked_spectrum"]


@dataclass(frozen=True, kw_only=True)
class SharedQkv(AttentionMethod):
    """Factorise the query, key and value of every attention with one shared thin layer."""

    keep: Keep
    """Fraction of the weights of query, key and value to keep in the matched attentions, e.g. 0.5."""

    def compress(self, model: nn.Module, locations: Sequence[SelfAttention], resources: Resources) -> nn.Module:
        """See `KeepsShare.compress`."""
        sides = {name: Side.INPUT for attention in locations for name in attention.inputs}
        moments = self.moments(model, resources, sides)
        candidates = {}
        for attention in locations:
            stacked_layer = stack_projections(model, attention)
            qkv_moments = [moments[name] for name in attention.inputs]
            candidates[attention] = Candidate.of(
                stacked_layer, stacked_spectrum(stacked_layer.weight.detach(), qkv_moments, metric=self.metric)
            )
        ranks = self._ranks(candidates)
        require_tokens(require_calibration(resources), largest_rank(ranks.values()), what="the largest rank")
        for attention, rank in ranks.items():
            if rank is not None:
                replace_module(
                    model,
                    attention.name,
                    attention_with_shared_input(model, attention, candidates[attention].layer(rank)),
                )
        return model

    def _ranks(self, candidates: Mapping[SelfAttention, Candidate]) -> dict[SelfAttention, int | None]:
        offers = {attention.name: candidate.offer() for attention, candidate in candidates.items()}
        options = {name: offer.options for name, offer in offers.items()}
        chosen = allocate(options, self.keep, spread=self.allocation == "by_loss")
        return {attention: offers[attention.name].ranks[chosen[attention.name]] for attention in candidates}


def stacked_spectrum(weight: Tensor, moments: Sequence[Moments], *, metric: Literal["kl", "outputs"]) -> Spectrum:
    """Return the spectrum of several layers that read the same input.

    Args:
        weight: (3 * out, in), the stacked weights.
        moments: one per layer, on the input side; with gradients if `metric` is "kl".
        metric: what to minimise; see `AttentionMethod`.
    """
    inputs = moments[0]
    if metric == "outputs":
        return output_pca(weight, covariance_of(inputs), inputs.mean)
    gradients = [layer.gradient for layer in moments if layer.gradient is not None]
    return svd_of_kl(covariance_of(inputs), torch.stack(gradients).sum(0), inputs.mean)
