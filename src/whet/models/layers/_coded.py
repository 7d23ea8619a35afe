"""Layers that are only stored: a small whole number for each weight, in as few bytes as they need."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch

from whet.models.layers.base import LayerShape, ReplacesDense
from whet.numerics.coding import Coding

__all__ = ["EntropyCoded"]


class EntropyCoded(ReplacesDense):
    """Only stored, never run: a small whole number for each weight, and what the numbers stand for."""

    own: ClassVar[tuple[str, ...]]
    """What it takes to build an empty one beside the form: arguments in their order, and entries of its structure."""

    codes: torch.Tensor
    """(bytes,) uint8, the numbers row by row."""
    bias: torch.Tensor | None
    """(rows,) or None."""

    def __init__(self, form: LayerShape, size: int, used: Coding) -> None:
        super().__init__(form)
        self.used = used  # what the form asks for, unless that is longer
        self.register_buffer("codes", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("bias", torch.zeros(form.rows) if form.bias else None)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "size": len(self.codes), "used": self.used}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        form = {key: value for key, value in structure.items() if key not in cls.own}
        return cls(cls.forms(**form), *(structure[key] for key in cls.own))
