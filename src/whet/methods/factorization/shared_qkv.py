"""Query, key and value of one attention factorised together: one thin layer that all three read, computed once.

The three weights stand on top of each other as one of (3·out, in), which `kfac` or `feature_mimicking` factorises as
any other: W ≈ W P_k Q_k, with V = Q_k in common and W_i P_k for each. Three factorizations of rank k hold k·6d weights
in six products, this one k·4d in four, so that it affords half as much rank again.

Source: the idea is common knowledge of low rank in attention; the optimum is that of `kfac` and `feature_mimicking` for
the stacked weights.
Differs: gradient moments of the three are summed, so that each counts by what its error costs in KL.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from whet.allocation import minimise, uniform
from whet.attention import SelfAttention, sharing_input, stacked
from whet.attention_method import AttentionMethod, of_kl
from whet.candidate import Candidate
from whet.resources import Resources
from whet.spectrum import Spectrum, centred, of_outputs
from whet.statistics import Moments, Side
from whet.surgery import replace

__all__ = ["SharedQkv"]


@dataclass(frozen=True, kw_only=True)
class SharedQkv(AttentionMethod):
    """Let query, key and value of encoders read one thin layer."""

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        places = SelfAttention.all_of(model, self.include)
        if self.keep == 1:
            return model
        sides = {name: Side.INPUT for place in places for name in place.projections}
        moments = self.moments(model, resources, sides, places)
        found = {place: Candidate.of(stacked(model, place), self._spectrum(model, place, moments)) for place in places}
        for place, rank in self._ranks(found).items():
            if rank is not None:
                replace(model, place.name, sharing_input(model, place, found[place].layer(rank)))
        return model

    def _spectrum(self, model: nn.Module, place: SelfAttention, moments: Mapping[str, Moments]) -> Spectrum:
        own = [moments[name] for name in place.projections]
        if self.metric == "outputs":
            return of_outputs(stacked(model, place).weight.detach(), centred(own[0]), own[0].mean)
        gradients = [one.gradient for one in own if one.gradient is not None]
        return of_kl(centred(own[0]), sum(gradients[1:], gradients[0]), own[0].mean)

    def _ranks(self, found: Mapping[SelfAttention, Candidate]) -> dict[SelfAttention, int | None]:
        offers = {place.name: candidate.offer() for place, candidate in found.items()}
        options = {name: offer.options for name, offer in offers.items()}
        budgets = {name: self.keep * float(own.costs[-1]) for name, own in options.items()}
        spread = self.allocation == "by_loss"
        chosen = minimise(options, sum(budgets.values())) if spread else uniform(options, budgets)
        return {place: offers[place.name].ranks[chosen[place.name]] for place in found}
