"""Query, key and value of one attention factorised together: one thin layer that all three read, computed once.

The three weights stand on top of each other as one of (3·out, in), which `kfac` or `feature_mimicking` factorises as
any other: W ≈ W P_k Q_k, with V = Q_k in common and W_i P_k for each. Three factorizations of rank k hold k·6d weights
in six products, this one k·4d in four, so that it affords half as much rank again.

Source: the idea is common knowledge of low rank in attention; the optimum is that of `kfac` and `feature_mimicking` for
the stacked weights.
Differs: gradient moments of the three are summed, so that each counts by what its error costs in KL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources, calibrated, require_tokens
from whet.methods._candidates import Candidate
from whet.methods.factorization._attention import AttentionMethod
from whet.methods.factorization._base import largest
from whet.models.attention import SelfAttention, sharing_input, stacked
from whet.models.surgery import replace
from whet.numerics.allocation import shared_out
from whet.numerics.low_rank import Spectrum, centred, output_pca, svd_of_kl
from whet.numerics.moments import Moments, Side

__all__ = ["SharedQkv", "of_stacked"]


@dataclass(frozen=True, kw_only=True)
class SharedQkv(AttentionMethod):
    """Let query, key and value of encoders read one thin layer."""

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        places = SelfAttention.all_of(model, self.include)
        if self.keep == 1:
            return model
        sides = {name: Side.INPUT for place in places for name in place.inputs}
        moments = self.moments(model, resources, sides)
        found = {}
        for place in places:
            joined = stacked(model, place)
            own = [moments[name] for name in place.inputs]
            found[place] = Candidate.of(joined, of_stacked(joined.weight.detach(), own, metric=self.metric))
        ranks = self._ranks(found)
        require_tokens(calibrated(resources), largest(ranks.values()), what="the largest rank")
        for place, rank in ranks.items():
            if rank is not None:
                replace(model, place.name, sharing_input(model, place, found[place].layer(rank)))
        return model

    def _ranks(self, found: Mapping[SelfAttention, Candidate]) -> dict[SelfAttention, int | None]:
        offers = {place.name: candidate.offer() for place, candidate in found.items()}
        options = {name: offer.options for name, offer in offers.items()}
        chosen = shared_out(options, self.keep, spread=self.allocation == "by_loss")
        return {place: offers[place.name].ranks[chosen[place.name]] for place in found}


def of_stacked(weight: Tensor, moments: Sequence[Moments], *, metric: Literal["kl", "outputs"]) -> Spectrum:
    """Return the decomposition of layers that read the same input.

    Args:
        weight: (3 * out, in), their weights on top of each other.
        moments: one a layer, on the input side.
        metric: what is minimised; see `AttentionMethod`.
    """
    inputs = moments[0]
    if metric == "outputs":
        return output_pca(weight, centred(inputs), inputs.mean)
    gradients = [one.gradient for one in moments if one.gradient is not None]
    return svd_of_kl(centred(inputs), torch.stack(gradients).sum(0), inputs.mean)
