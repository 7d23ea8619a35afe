"""A linear layer some of whose weights are zero and stay so: training goes on with those that are left."""

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from whet.layer import OneLinear

__all__ = ["Masked"]


class Masked(OneLinear):
    """Sends no gradient to weights that are zero."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Return the layer with these weights.

        Args:
            weight: (out, in), zero where it is pruned.
            bias: (out,) or None.
        """
        layer = cls(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight)
        layer.linear.weight.data.copy_(weight)
        if bias is not None:
            layer.linear.bias.data.copy_(bias)
        return layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        if not torch.is_grad_enabled():
            out: Tensor = self.linear(inputs)
            return out
        weight = self.linear.weight
        # where the gradient is zero from the start, AdamW has nothing to move and nothing to decay
        return linear(inputs, weight * (weight.detach() != 0), self.linear.bias)
