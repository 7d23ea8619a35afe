"""How a pruned layer is stored: one bit for every weight, which says whether it is there, and those that are.

It is never run: it takes a pruned layer's place when a model is saved, and gives it back when one is loaded.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from whet.layer import CompressedLayer

__all__ = ["Packed"]

BYTE = 8


class Packed(CompressedLayer):
    """Values and bits of one pruned layer."""

    bits: Tensor
    """(ceil(out · in / 8),) uint8, row by row, the lowest bit first."""
    values: Tensor
    """(weights that are not zero,) in that order."""

    def __init__(self, in_features: int, out_features: int, values: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer("bits", torch.zeros(-(-in_features * out_features // BYTE), dtype=torch.uint8))
        self.register_buffer("values", torch.zeros(values))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Return the stored form of a layer.

        Args:
            weight: (out, in), zero where it is pruned.
            bias: (out,) or None.
        """
        there = (weight != 0).flatten()
        packed = cls(weight.shape[1], weight.shape[0], int(there.sum()), bias=bias is not None).to(weight)
        padded = torch.zeros(len(packed.bits) * BYTE, dtype=torch.uint8, device=weight.device)
        padded[: len(there)] = there
        shifts = torch.arange(BYTE, dtype=torch.uint8, device=weight.device)
        packed.bits = (padded.reshape(-1, BYTE) << shifts).sum(1, dtype=torch.uint8)
        packed.values = weight.flatten()[there]
        if bias is not None:
            packed.bias = bias.clone()
        return packed

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight (out, in) and the bias, (out,) or None, the same to the bit."""
        shifts = torch.arange(BYTE, dtype=torch.uint8, device=self.bits.device)
        there = ((self.bits[:, None] >> shifts) & 1).flatten()[: self.in_features * self.out_features].bool()
        weight = torch.zeros(len(there), dtype=self.values.dtype, device=self.values.device)
        weight[there] = self.values
        bias: Tensor | None = self.bias  # type: ignore[assignment]
        return weight.reshape(self.out_features, self.in_features), bias

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
