"""First and second moments of a linear layer's activations, and of the gradients that reach it."""

from enum import Enum
from typing import NamedTuple

from torch import Tensor

__all__ = ["Moments", "Side", "moments_at", "narrower_side"]


class Side(Enum):
    """The side of a layer at which moments are taken."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"
    """Activations at the input, gradients at the output."""


class Moments(NamedTuple):
    """Moments of one layer's activations z and gradients h, taken at one side of the layer, in float64."""

    mean: Tensor
    """(d,) mean of z over real tokens."""
    second: Tensor
    """(d, d) mean of z zᵀ over real tokens."""
    gradient: Tensor | None
    """(d, d) sum of h hᵀ over the tokens of an example, averaged over examples; None if gradients were not taken."""


def moments_at(moments: Moments, weight: Tensor, side: Side) -> Moments:
    """Return the moments at one side of a layer, from those taken at `Side.BOTH`.

    Args:
        moments: activations at the input and gradients at the output; the gradients must be there.
        weight: (out, in) weight of the layer.
        side: `Side.INPUT` or `Side.OUTPUT`.
    """
    assert moments.gradient is not None
    dense = weight.double()
    if side is Side.INPUT:
        return moments._replace(gradient=dense.T @ moments.gradient @ dense)
    return moments._replace(mean=dense @ moments.mean, second=dense @ moments.second @ dense.T)


def narrower_side(weight: Tensor) -> Side:
    """Return the narrower side of an (out, in) weight; of equal sides the input, since layers can share inputs."""
    return Side.INPUT if weight.shape[1] <= weight.shape[0] else Side.OUTPUT
