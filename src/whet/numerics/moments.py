"""Second moments and means of what goes into and comes out of a linear layer."""

from enum import Enum
from typing import NamedTuple

from torch import Tensor

__all__ = ["Moments", "Side", "moments_at", "narrower_side"]


class Side(Enum):
    """Where a layer is looked at."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"
    """Activations at the input, gradients at the output."""


class Moments(NamedTuple):
    """What calibration says of one layer, on the side on which it was looked at, in float64."""

    mean: Tensor
    """(d,) mean of z over real tokens."""
    second: Tensor
    """(d, d) mean of z zᵀ over real tokens."""
    gradient: Tensor | None
    """(d, d) sum of h hᵀ over the tokens of an example, mean over examples; None if it was not asked for."""


def moments_at(moments: Moments, weight: Tensor, side: Side) -> Moments:
    """Return the moments on one side of a layer that was looked at on both.

    Args:
        moments: with gradients; activations at the input, gradients at the output.
        weight: (out, in) of the layer.
        side: the input or the output.
    """
    assert moments.gradient is not None
    dense = weight.double()
    if side is Side.INPUT:
        return moments._replace(gradient=dense.T @ moments.gradient @ dense)
    return moments._replace(mean=dense @ moments.mean, second=dense @ moments.second @ dense.T)


def narrower_side(weight: Tensor) -> Side:
    """Return the narrower side of a weight (out, in); the input's if both are equal, since inputs can be shared."""
    return Side.INPUT if weight.shape[1] <= weight.shape[0] else Side.OUTPUT
