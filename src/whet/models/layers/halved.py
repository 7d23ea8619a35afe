"""An ordinary layer whose weights have 16 bits, and are stored so."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whet.models.layers.base import CompressedLayer, LayerShape, ReplacesDense, RunsDense

__all__ = ["HalfPrecision", "HalfSpec", "PackedHalf"]


@dataclass(frozen=True)
class HalfSpec(LayerShape):
    """An ordinary layer, with the 16 bits that its weights fit."""

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """Of the stored weights."""

    def rounded(self, weight: Tensor) -> Tensor:
        """Return the nearest weight of that dtype, in that dtype."""
        found: Tensor = weight.to(getattr(torch, self.dtype))
        return found


class HalfPrecision(RunsDense):
    """Runs as the ordinary layer in float32."""

    saved_as: ClassVar[str] = "halved"

    forms = HalfSpec
    form: HalfSpec

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`; weights that were trained since are stored as they are."""
        weight = self.dense.weight.detach()
        half = self.form.rounded(weight)
        return PackedHalf.of(half, self.bias, self.form) if torch.equal(half.to(weight.dtype), weight) else self


class PackedHalf(ReplacesDense):
    """Weights of 16 bits of one layer; never run."""

    saved_as: ClassVar[str] = "half"

    forms = HalfSpec
    form: HalfSpec
    values: Tensor
    """(rows, columns) of the form's dtype."""
    bias: Tensor | None
    """(rows,) or None."""

    def __init__(self, form: HalfSpec) -> None:
        super().__init__(form)
        self.register_buffer("values", torch.zeros(form.rows, form.columns, dtype=getattr(torch, form.dtype)))
        self.register_buffer("bias", torch.zeros(form.rows) if form.bias else None)

    @classmethod
    def of(cls, values: Tensor, bias: Tensor | None, form: HalfSpec) -> "PackedHalf":
        """Return the stored form of a layer with these weights, and bias, (rows,) or None."""
        stored = cls(form)
        stored.values = values
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are the same to the bit."""
        return HalfPrecision.of(self.values.to(self.weight.dtype), self.bias, self.form)
