"""A linear layer or a table of embeddings some of whose weights are zero and stay so: training goes on with the others.

It is stored as one bit for every weight, which says whether it is there, and those that are.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from whet.models.layers.base import CompressedLayer, WrapsLinear
from whet.numerics.coding import pack_bits, to_narrowest_dtype, unpack_bits

__all__ = ["Masked", "MaskedEmbedding", "PackedSparse", "PackedSparseEmbedding"]

BYTE = 8


class Masked(WrapsLinear):
    """Sends no gradient to weights that are zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        # (a frozen weight may have corrections beside it, which only the layer itself knows of)
        if not (torch.is_grad_enabled() and self.linear.weight.requires_grad):
            out: Tensor = self.linear(inputs)
            return out
        weight = self.linear.weight
        # where the gradient is zero from the start, AdamW has nothing to move and nothing to decay
        return linear(inputs, weight * (weight.detach() != 0), self.linear.bias)

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        stored = PackedSparse.of(self.linear.weight.detach(), self.linear.bias)
        return stored if stored.pays() else self


class MaskedEmbedding(CompressedLayer):
    """Sends no gradient to weights that are zero."""

    def __init__(self, tokens: int, width: int, padding_idx: int | None) -> None:
        super().__init__()
        self.tokens = tokens
        self.width = width
        self.padding_idx = padding_idx
        self.embedding = nn.Embedding(tokens, width, padding_idx)

    @classmethod
    def of(cls, weight: Tensor, padding_idx: int | None) -> Self:
        """Return the layer with these weights.

        Args:
            weight: (tokens, width), zero where it is pruned.
            padding_idx: the token whose row is never trained, or None.
        """
        layer = cls(weight.shape[0], weight.shape[1], padding_idx).to(weight)
        layer.embedding.weight.data.copy_(weight)
        return layer

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., width) from (...) token ids."""
        rows: Tensor = self.embedding(ids)
        # where the gradient is zero from the start, AdamW has nothing to move and nothing to decay
        return rows * (rows.detach() != 0) if torch.is_grad_enabled() else rows

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        stored = PackedSparseEmbedding.of(self.embedding.weight.detach(), None)
        stored.padding_idx = self.padding_idx
        return stored if stored.pays() else self

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"tokens": self.tokens, "width": self.width, "padding_idx": self.padding_idx}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["tokens"], structure["width"], structure["padding_idx"])


class PackedSparse(CompressedLayer):
    """Values and bits of one pruned linear layer; never run."""

    saved_as: ClassVar[str] = "packed"

    bits: Tensor
    """(ceil(out · in / 8),) uint8, row by row, the lowest bit first."""
    values: Tensor
    """(weights that are not zero,) in that order, in 16 bits where that loses nothing."""
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
    def of(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Return the stored form of a layer with these weights, (out, in) and (out,) or None."""
        there = (weight != 0).flatten()
        stored = cls(weight.shape[1], weight.shape[0], int(there.sum()), bias=bias is not None).to(weight)
        stored.bits = pack_bits(there.byte(), 1)
        stored.values = to_narrowest_dtype(weight.flatten()[there])
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def weight_again(self) -> Tensor:
        """Return the weight, (out, in), the same to the bit."""
        there = unpack_bits(self.bits, 1, self.in_features * self.out_features).bool()
        weight = torch.zeros(len(there), dtype=self.weight.dtype, device=self.values.device)
        weight[there] = self.values.to(weight.dtype)
        return weight.reshape(self.out_features, self.in_features)

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`."""
        return Masked.of(self.weight_again(), self.bias)

    def pays(self) -> bool:
        """Return whether it takes less room than the dense weight."""
        whole = self.weight.element_size() * self.in_features * self.out_features
        return len(self.bits) + self.values.element_size() * len(self.values) < whole

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


class PackedSparseEmbedding(PackedSparse):
    """Values and bits of one pruned table, a row for each token; never run."""

    saved_as: ClassVar[str] = "packed_embedding"

    padding_idx: int | None = None
    """The token whose row is never trained."""

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`."""
        return MaskedEmbedding.of(self.weight_again(), self.padding_idx)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "padding_idx": self.padding_idx}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        layer = super().empty(structure)
        layer.padding_idx = structure["padding_idx"]
        return layer
