"""A table of embeddings some of whose weights are zero and stay so: training goes on with those that are left."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from whet.layer import CompressedLayer

__all__ = ["MaskedEmbedding"]


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

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"tokens": self.tokens, "width": self.width, "padding_idx": self.padding_idx}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["tokens"], structure["width"], structure["padding_idx"])
