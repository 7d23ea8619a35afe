"""A layer norm that goes on with the first token alone.

Behind an attention of the first token, x + attention(x) still has a row for every token, of which the first is right;
from here on there is no other. Its weights have their own names: without whet they make the whole layer norm again.
"""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from whet.models.layers.base import SavedLayer

__all__ = ["FirstTokenNorm"]


class FirstTokenNorm(SavedLayer, nn.LayerNorm):
    """Takes the place of the layer norm behind the last attention."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, 1, hidden) from (batch, tokens, hidden)."""
        return super().forward(inputs[:, :1])

    def structure(self) -> dict[str, Any]:
        """See `SavedLayer.structure`; all that it needs is the layer norm whose place it takes."""
        return {}

    @classmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """See `SavedLayer.in_place_of`."""
        if type(replaced) is not nn.LayerNorm:
            raise TypeError(f"{type(replaced).__name__} is no layer norm")
        layer = cls(replaced.normalized_shape, replaced.eps)
        layer.weight, layer.bias = replaced.weight, replaced.bias
        return layer
