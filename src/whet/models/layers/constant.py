"""A layer whose answer is always the same: what is left of a part of a block that was taken out whole."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from whet.models.layers.base import CompressedLayer

__all__ = ["Constant"]


class Constant(CompressedLayer):
    """Takes the place of a linear layer, or of a whole self-attention."""

    def __init__(
        self, features: int, *, rows: Literal["all", "first"] = "all", returns: Literal["tensor", "pair"] = "tensor"
    ) -> None:
        """Make the answer.

        Args:
            features: of the answer.
            rows: for which tokens it answers: all that come in, or the first alone.
            returns: the answer, or, as attentions do, a pair of it and None.
        """
        super().__init__()
        self.rows = rows
        self.returns = returns
        self.bias = nn.Parameter(torch.zeros(features))

    @classmethod
    def of(cls, bias: Tensor, **how: Any) -> Self:
        """Return the layer that answers (features,) `bias`; for the rest see `__init__`."""
        layer = cls(len(bias), **how).to(bias)
        layer.bias.data.copy_(bias)
        return layer

    def forward(self, inputs: Tensor, *_: object, **__: object) -> Any:
        """Return (batch, tokens, features), whatever the values of `inputs`, (batch, tokens, in)."""
        like = inputs if self.rows == "all" else inputs[:, :1]
        answer = self.bias.expand(*like.shape[:-1], -1)
        return answer if self.returns == "tensor" else (answer, None)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"features": len(self.bias), "rows": self.rows, "returns": self.returns}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(**structure)
