"""The base of layers that exist only in files and store one small integer per weight in a compact coding."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch

from whet.models.layers.base import LayerShape, ReplacesDense
from whet.numerics.coding import Coding

__all__ = ["EntropyCoded"]


class EntropyCoded(ReplacesDense):
    """Exists only in files: one integer per weight; subclasses add the values that the integers stand for."""

    extra_fields: ClassVar[tuple[str, ...]]
    """Entries of the structure that `empty` passes to the constructor after the spec, in order."""

    codes: torch.Tensor
    """(bytes,) uint8, the coded integers, row by row."""
    bias: torch.Tensor | None
    """(rows,) or None."""

    def __init__(self, spec: LayerShape, size: int, used: Coding) -> None:
        super().__init__(spec)
        self.used = used  # the coding that the spec asks for, or "fixed" where that is shorter
        self.register_buffer("codes", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("bias", torch.zeros(spec.rows) if spec.bias else None)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "size": len(self.codes), "used": self.used}

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        spec = {key: value for key, value in structure.items() if key not in cls.extra_fields}
        return cls(cls.spec_class(**spec), *(structure[key] for key in cls.extra_fields))
