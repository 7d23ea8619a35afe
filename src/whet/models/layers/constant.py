"""A layer with a constant output: it remains of an attention or a feed-forward part that was removed as a whole."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from whet.models.layers._heads import refuse_attentions
from whet.models.layers.base import CompressedLayer

__all__ = ["Constant"]


class Constant(CompressedLayer):
    """Replaces a linear layer or a whole self-attention; only the shape of its input matters."""

    def __init__(
        self, features: int, *, rows: Literal["all", "first"] = "all", returns: Literal["tensor", "pair"] = "tensor"
    ) -> None:
        """Create a zero output.

        Args:
            features: features of the output.
            rows: tokens in the output: all input tokens, or only the first.
            returns: the output tensor, or a pair of it and None, as attention modules return.
        """
        super().__init__()
        self.rows = rows
        self.returns = returns
        self.bias = nn.Parameter(torch.zeros(features))

    @classmethod
    def of(cls, bias: Tensor, **options: Any) -> Self:
        """Return a layer with the constant output `bias`, (features,); `options` are those of `__init__`."""
        layer = cls(len(bias), **options).to(bias)
        layer.bias.data.copy_(bias)
        return layer

    def forward(self, inputs: Tensor, *_: object, **others: object) -> Any:
        """Return (batch, tokens or 1, features) for `inputs` of shape (batch, tokens, in), or its pair with None."""
        refuse_attentions(self.hides_attentions and others.get("output_attentions"))
        rows = inputs if self.rows == "all" else inputs[:, :1]
        output = self.bias.expand(*rows.shape[:-1], -1)
        return output if self.returns == "tensor" else (output, None)

    @property
    def hides_attentions(self) -> bool:
        """See `SavedLayer.hides_attentions`."""
        return self.returns == "pair"

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"features": len(self.bias), "rows": self.rows, "returns": self.returns}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(**structure)
