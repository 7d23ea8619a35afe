"""A linear layer factorised into two thinner ones: y = u(v(x)) + b.

The factors have rank · (in + out) instead of in · out weights.
"""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from whet.models.layers.base import CompressedLayer

__all__ = ["LowRank"]


class LowRank(CompressedLayer):
    """Replaces a linear layer; both factors are ordinary linear layers, which LoRA, quantizers and exporters find."""

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.rank = rank
        self.v = nn.Linear(in_features, rank, bias=False)
        self.u = nn.Linear(rank, out_features, bias=bias)

    @classmethod
    def of(cls, u: Tensor, v: Tensor, bias: Tensor | None) -> Self:
        """Return a layer with these factors.

        Args:
            u: (out, rank).
            v: (rank, in).
            bias: (out,) or None.
        """
        layer = cls(v.shape[1], u.shape[0], u.shape[1], bias=bias is not None).to(u)
        layer.u.weight.data.copy_(u)
        layer.v.weight.data.copy_(v)
        if bias is not None:
            layer.u.bias.data.copy_(bias)
        return layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        out: Tensor = self.u(self.v(inputs))
        return out

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "rank": self.rank,
            "bias": self.u.bias is not None,
        }

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(structure["in_features"], structure["out_features"], structure["rank"], bias=structure["bias"])

    def extra_repr(self) -> str:
        """Return the shape for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
