"""Token embeddings factorised into a narrower table and a projection.

The factors have rank · (tokens + width) instead of tokens · width weights.
"""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from whet.models.layers.base import CompressedLayer

__all__ = ["LowRankEmbedding"]


class LowRankEmbedding(CompressedLayer):
    """Replaces an embedding by an ordinary embedding and an ordinary linear layer, which other methods find."""

    def __init__(self, tokens: int, width: int, rank: int, padding_idx: int | None) -> None:
        super().__init__()
        self.tokens = tokens
        self.width = width
        self.rank = rank
        self.padding_idx = padding_idx
        self.embedding = nn.Embedding(tokens, rank, padding_idx)
        self.projection = nn.Linear(rank, width, bias=False)

    @classmethod
    def of(cls, table: Tensor, projection: Tensor, padding_idx: int | None) -> Self:
        """Return a layer with these factors.

        Args:
            table: (tokens, rank).
            projection: (rank, width).
            padding_idx: the token whose row is never trained, or None.
        """
        layer = cls(table.shape[0], projection.shape[1], table.shape[1], padding_idx).to(table)
        layer.embedding.weight.data.copy_(table)
        layer.projection.weight.data.copy_(projection.T)
        return layer

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., width) from (...) token ids."""
        out: Tensor = self.projection(self.embedding(ids))
        return out

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"tokens": self.tokens, "width": self.width, "rank": self.rank, "padding_idx": self.padding_idx}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["tokens"], structure["width"], structure["rank"], structure["padding_idx"])

    def extra_repr(self) -> str:
        """Return the shape for `print(model)`."""
        return f"{self.tokens} x {self.width}, rank={self.rank}"
