"""A linear layer some of whose weights are zero and stay so: training goes on with those that are left."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from whet.layer import OneLinear

__all__ = ["Masked"]


class Masked(OneLinear):
    """Sends no gradient to weights that are zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        if not torch.is_grad_enabled():
            out: Tensor = self.linear(inputs)
            return out
        weight = self.linear.weight
        # where the gradient is zero from the start, AdamW has nothing to move and nothing to decay
        return linear(inputs, weight * (weight.detach() != 0), self.linear.bias)
