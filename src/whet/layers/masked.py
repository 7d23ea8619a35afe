"""A linear layer some of whose weights are zero and stay so: training goes on with those that are left.

It is stored as one bit for every weight, which says whether it is there, and those that are.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from whet.bits import packed, unpacked
from whet.layer import CompressedLayer, OneLinear

__all__ = ["Masked", "Packed"]

BYTE = 8


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

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        stored = Packed.of(self)
        return stored if stored.pays() else self


class Packed(CompressedLayer):
    """Values and bits of one pruned layer; never run."""

    bits: Tensor
    """(ceil(out · in / 8),) uint8, row by row, the lowest bit first."""
    values: Tensor
    """(weights that are not zero,) in that order."""
    bias: Tensor | None
    """(out,) or None."""

    def __init__(self, in_features: int, out_features: int, values: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer("bits", torch.zeros(-(-in_features * out_features // BYTE), dtype=torch.uint8))
        self.register_buffer("values", torch.zeros(values))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    @classmethod
    def of(cls, layer: Masked) -> Self:
        """Return the stored form of a layer."""
        weight, bias = layer.linear.weight.detach(), layer.linear.bias
        there = (weight != 0).flatten()
        stored = cls(weight.shape[1], weight.shape[0], int(there.sum()), bias=bias is not None).to(weight)
        stored.bits = packed(there.byte(), 1)
        stored.values = weight.flatten()[there]
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are the same to the bit."""
        there = unpacked(self.bits, 1, self.in_features * self.out_features).bool()
        weight = torch.zeros(len(there), dtype=self.values.dtype, device=self.values.device)
        weight[there] = self.values
        return Masked.of(weight.reshape(self.out_features, self.in_features), self.bias)

    def pays(self) -> bool:
        """Return whether it takes less room than the dense weight."""
        size = self.values.element_size()
        return len(self.bits) + size * len(self.values) < size * self.in_features * self.out_features

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "values": len(self.values),
            "bias": self.bias is not None,
        }

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        sizes = (structure[name] for name in ("in_features", "out_features", "values"))
        return cls(*sizes, bias=structure["bias"])
