"""The base of methods that compress self-attention: its parameters, and one pass over the calibration data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.methods._share import KeepsShare
from whet.models.attention import SelfAttention
from whet.numerics.moments import Moments, Side
from whet.utils.ranges import Keep, Temperature

__all__ = ["AttentionMethod"]


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(KeepsShare):
    """A method that changes the structure of every self-attention of an encoder."""

    keep: Keep
    """Fraction of the weights of the matched attentions to keep, e.g. 0.5."""
    allocation: Literal["uniform", "by_loss"] = "by_loss"
    """How to share the budget: uniform keeps the same fraction in every attention, by_loss minimises the summed
    loss."""
    metric: Literal["kl", "outputs"] = "kl"
    """What to minimise: kl weights errors by their cost in KL divergence, outputs takes the squared error of
    outputs."""
    include: str = "*"
    """Wildcard over the names of attention modules; attentions that do not match stay unchanged."""
    temperature: Temperature = 3.0
    """Temperature that softens the predictions before gradients are taken; see factorization.kfac."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def locations(self, model: nn.Module, resources: Resources) -> Sequence[SelfAttention]:
        """See `KeepsShare.locations`."""
        return SelfAttention.all_of(model, self.include)

    def moments(self, model: nn.Module, resources: Resources, sides: Mapping[str, Side]) -> dict[str, Moments]:
        """Return the moments of the layers in `sides`, by name.

        It takes one forward pass over the calibration data, and with `metric="kl"` a backward pass too.
        """
        seed = resources.seed if self.metric == "kl" else None
        return collect_moments(
            model, require_calibration(resources), list(sides), seed=seed, temperature=self.temperature, sides=sides
        )
