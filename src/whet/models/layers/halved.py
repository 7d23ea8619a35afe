"""An ordinary layer that runs in fp32 and whose weights fit 16 bits, in which files store them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whet.models.layers.base import CompressedLayer, LayerShape, ReplacesDense, RunsDense

__all__ = ["HalfPrecision", "HalfSpec", "PackedHalf"]


@dataclass(frozen=True)
class HalfSpec(LayerShape):
    """The type and shape of an ordinary layer, and the 16-bit dtype of its stored weights."""

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """The dtype of the stored weights."""

    def rounded(self, weight: Tensor) -> Tensor:
        """Return the weight rounded to `dtype`, in `dtype`."""
        half: Tensor = weight.to(getattr(torch, self.dtype))
        return half


class HalfPrecision(RunsDense):
    """Runs as an ordinary fp32 layer whose weights fit 16 bits."""

    saved_as: ClassVar[str] = "halved"

    spec_class = HalfSpec
    spec: HalfSpec

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`; weights that training has moved off 16 bits are stored in fp32."""
        weight = self.dense.weight.detach()
        half = self.spec.rounded(weight)
        return PackedHalf.of(half, self.bias, self.spec) if torch.equal(half.to(weight.dtype), weight) else self

    def empty_storage(self, tensors: Mapping[str, Tensor]) -> CompressedLayer | None:
        """See `CompressedLayer.empty_storage`."""
        return PackedHalf(self.spec) if "values" in tensors else None


class PackedHalf(ReplacesDense):
    """The stored form of a 16-bit layer; it never runs."""

    saved_as: ClassVar[str] = "half"

    spec_class = HalfSpec
    spec: HalfSpec
    values: Tensor
    """(rows, columns) in the dtype of the spec."""
    bias: Tensor | None
    """(rows,) or None."""

    def __init__(self, spec: HalfSpec) -> None:
        super().__init__(spec)
        self.register_buffer("values", torch.zeros(spec.rows, spec.columns, dtype=getattr(torch, spec.dtype)))
        self.register_buffer("bias", torch.zeros(spec.rows) if spec.bias else None)

    @classmethod
    def of(cls, values: Tensor, bias: Tensor | None, spec: HalfSpec) -> "PackedHalf":
        """Return the stored form of a layer with these 16-bit weights, (rows, columns), and bias, (rows,) or None."""
        stored = cls(spec)
        stored.values = values
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are bit-identical."""
        return HalfPrecision.of(self.values.to(self.weight.dtype), self.bias, self.spec)
