"""A layer norm that passes only the first token on.

After an attention with a query for the first token alone, x + attention(x) still has a row for every token, but only
the first row is meaningful. The weights keep their names, so that without whet the same file loads as the full norm.
"""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from whet.models.layers.base import SavedLayer

__all__ = ["FirstTokenNorm"]


class FirstTokenNorm(SavedLayer, nn.LayerNorm):
    """Replaces the layer norm after the last attention."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, 1, hidden) from (batch, tokens, hidden)."""
        return super().forward(inputs[:, :1])

    def structure(self) -> dict[str, Any]:
        """See `SavedLayer.structure`; the replaced layer norm has everything else."""
        return {}

    @classmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """See `SavedLayer.in_place_of`."""
        if type(replaced) is not nn.LayerNorm:
            raise TypeError(f"{type(replaced).__name__} is not a layer norm")
        layer = cls(replaced.normalized_shape, replaced.eps)
        layer.weight, layer.bias = replaced.weight, replaced.bias
        return layer
