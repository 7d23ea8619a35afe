"""A layer that returns its input; it stands before a `Constant`, which reads only the shape."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from whet.models.layers._heads import refuse_attentions
from whet.models.layers.base import CompressedLayer

__all__ = ["PassThrough"]


class PassThrough(CompressedLayer):
    """Replaces a linear layer or a whole self-attention before a `Constant`."""

    saved_as: ClassVar[str] = "passing"

    def __init__(self, *, rows: Literal["all", "first"] = "all", returns: Literal["tensor", "pair"] = "tensor") -> None:
        """Store which rows to return, and in which form; see `Constant`."""
        super().__init__()
        self.rows = rows
        self.returns = returns

    def forward(self, inputs: Tensor, *_: object, **others: object) -> Any:
        """Return `inputs`, (batch, tokens, in), or only the first token's rows, (batch, 1, in)."""
        refuse_attentions(self.hides_attentions and others.get("output_attentions"))
        kept = inputs if self.rows == "all" else inputs[:, :1]
        return kept if self.returns == "tensor" else (kept, None)

    @property
    def hides_attentions(self) -> bool:
        """See `SavedLayer.hides_attentions`."""
        return self.returns == "pair"

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {"rows": self.rows, "returns": self.returns}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(**structure)
