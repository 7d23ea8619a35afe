"""A linear layer some of whose weights are zero and stay so: training goes on with those that are left."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from whet.layer import CompressedLayer

__all__ = ["Masked"]


class Masked(CompressedLayer):
    """One ordinary linear layer. What is zero when training begins gets no gradient."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self._kept: Tensor | None = None

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
        if self._kept is None or self._kept.device != weight.device:
            self._kept = weight.detach() != 0
        # gradients pass where weights are; where none is, the optimizer has nothing to move
        return linear(inputs, weight * self._kept, self.linear.bias)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {
            "in_features": self.linear.in_features,
            "out_features": self.linear.out_features,
            "bias": self.linear.bias is not None,
        }

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["in_features"], structure["out_features"], bias=structure["bias"])
