"""A linear layer of another shape than the model's configuration says."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from whet.layer import CompressedLayer

__all__ = ["Resized"]


class Resized(CompressedLayer):
    """One ordinary linear layer, with fewer inputs or outputs than that whose place it takes."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        out: Tensor = self.linear(inputs)
        return out

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
