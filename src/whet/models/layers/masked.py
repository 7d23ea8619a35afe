"""A pruned linear layer or embedding: zero weights stay zero in training.

Files hold one bit per weight, which says whether it is nonzero, and the nonzero weights.
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
    """A pruned linear layer; weights that are zero get no gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        # a frozen weight may carry LoRA, which only the wrapped layer's own forward applies
        if not (torch.is_grad_enabled() and self.linear.weight.requires_grad):
            out: Tensor = self.linear(inputs)
            return out
        weight = self.linear.weight
        # with a zero gradient from the start, AdamW neither moves nor decays a zero weight
        return linear(inputs, weight * (weight.detach() != 0), self.linear.bias)

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        stored = PackedSparse.of(self.linear.weight.detach(), self.linear.bias)
        return stored if stored.pays() else self

    def empty_storage(self, tensors: Mapping[str, Tensor]) -> CompressedLayer | None:
        """See `CompressedLayer.empty_storage`."""
        if "bits" not in tensors:
            return None
        return PackedSparse(self.in_features, self.out_features, len(tensors["values"]), bias=self.bias is not None)


class MaskedEmbedding(CompressedLayer):
    """A pruned embedding; weights that are zero get no gradient."""

    def __init__(self, tokens: int, width: int, padding_idx: int | None) -> None:
        super().__init__()
        self.tokens = tokens
        self.width = width
        self.padding_idx = padding_idx
        self.embedding = nn.Embedding(tokens, width, padding_idx)

    @classmethod
    def of(cls, weight: Tensor, padding_idx: int | None) -> Self:
        """Return a layer with these weights.

        Args:
            weight: (tokens, width), zero where pruned.
            padding_idx: the token whose row is never trained, or None.
        """
        layer = cls(weight.shape[0], weight.shape[1], padding_idx).to(weight)
        layer.embedding.weight.data.copy_(weight)
        return layer

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., width) from (...) token ids."""
        rows: Tensor = self.embedding(ids)
        # with a zero gradient from the start, AdamW neither moves nor decays a zero weight
        return rows * (rows.detach() != 0) if torch.is_grad_enabled() else rows

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        stored = PackedSparseEmbedding.of(self.embedding.weight.detach(), None)
        stored.padding_idx = self.padding_idx
        return stored if stored.pays() else self

    def empty_storage(self, tensors: Mapping[str, Tensor]) -> CompressedLayer | None:
        """See `CompressedLayer.empty_storage`."""
        if "bits" not in tensors:
            return None
        return PackedSparseEmbedding(self.width, self.tokens, len(tensors["values"]), bias=False)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"tokens": self.tokens, "width": self.width, "padding_idx": self.padding_idx}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["tokens"], structure["width"], structure["padding_idx"])


class PackedSparse(CompressedLayer):
    """The stored form of a pruned linear layer; it never runs."""

    saved_as: ClassVar[str] = "packed"

    bits: Tensor
    """(ceil(out · in / 8),) uint8 mask of nonzero weights, row by row, lowest bit first."""
    values: Tensor
    """(nonzeros,) the nonzero weights, row by row, in 16 bits if that is lossless."""
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
        """Return the stored form of a layer with this weight, (out, in), and bias, (out,) or None."""
        nonzero = (weight != 0).flatten()
        stored = cls(weight.shape[1], weight.shape[0], int(nonzero.sum()), bias=bias is not None).to(weight)
        stored.bits = pack_bits(nonzero.byte(), 1)
        stored.values = to_narrowest_dtype(weight.flatten()[nonzero])
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def weight_again(self) -> Tensor:
        """Return the original weight, (out, in), bit-identical."""
        nonzero = unpack_bits(self.bits, 1, self.in_features * self.out_features).bool()
        weight = torch.zeros(len(nonzero), dtype=self.weight.dtype, device=self.values.device)
        weight[nonzero] = self.values.to(weight.dtype)
        return weight.reshape(self.out_features, self.in_features)

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`."""
        return Masked.of(self.weight_again(), self.bias)

    def pays(self) -> bool:
        """Return whether the stored form takes less space than the dense weight."""
        dense_bytes = self.weight.element_size() * self.in_features * self.out_features
        return len(self.bits) + self.values.element_size() * len(self.values) < dense_bytes

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
    """The stored form of a pruned embedding, with a row per token; it never runs."""

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
