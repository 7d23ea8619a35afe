"""Quantized layers: files store integers and scales; the layers run as ordinary fp32 layers or with int8 kernels.

A weight is w = s·q with an integer q; see `whet.numerics.rounding`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from whet.models.layers._coded import EntropyCoded
from whet.models.layers.base import CompressedLayer, LayerShape, ReplacesDense, RunsDense
from whet.numerics.coding import Coding, coding_used, decode_integers, encode_integers
from whet.numerics.rounding import QuantizedWeight, largest_level, quantize_weight
from whet.utils.hardware import supports_products

__all__ = ["Int8", "PackedQuantized", "QuantizationSpec", "Quantized"]


@dataclass(frozen=True)
class QuantizationSpec(LayerShape):
    """The type and shape of an ordinary layer, and how its weights are quantized."""

    bits: int = 8
    """Bits per weight."""
    group_size: int | None = None
    """Inputs of an output that share a scale; None means all inputs."""
    coding: Coding = "fixed"
    """How files store the integers."""
    products: Literal["float32", "int8"] = "float32"
    """The arithmetic of the matrix product: float32, or int8 with dynamically quantized inputs."""

    def rounded(self, weight: Tensor) -> QuantizedWeight:
        """Return the quantized weight with float16 scales; an already quantized weight does not change."""
        return quantize_weight(weight, bits=self.bits, group_size=self.group_size, scale_dtype=torch.float16)


class Quantized(RunsDense):
    """Runs as an ordinary layer with quantized weights, at no extra cost."""

    spec_class = QuantizationSpec
    spec: QuantizationSpec

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`; weights that training has moved off the levels are stored in fp32."""
        weight = self.dense.weight.detach()
        quantized = self.spec.rounded(weight)
        return PackedQuantized.of(quantized, self.bias, self.spec) if torch.equal(quantized.weight(), weight) else self

    def empty_storage(self, tensors: Mapping[str, Tensor]) -> CompressedLayer | None:
        """See `CompressedLayer.empty_storage`."""
        return PackedQuantized.empty_for(tensors, self.spec) if "codes" in tensors else None


class Int8(ReplacesDense):
    """A linear layer with int8 products; inputs are quantized with one scale and zero point per batch.

    On processors without int8 instructions inputs get 7 bits, since sums of two products would overflow. The layer
    computes in float with the quantized weight if inputs need gradients, are not float32, or are not on a CPU.
    """

    spec_class = QuantizationSpec
    spec: QuantizationSpec
    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out, 1) float32."""
    bias: Tensor | None
    """(out,) or None."""

    def __init__(self, spec: LayerShape) -> None:
        super().__init__(spec)
        self.register_buffer("values", torch.zeros(spec.rows, spec.columns, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(spec.rows, 1))
        self.register_buffer("bias", torch.zeros(spec.rows) if spec.bias else None)
        self._packed: Any = None
        self._packed_of: tuple[int, ...] = ()

    @classmethod
    def of(cls, quantized: QuantizedWeight, bias: Tensor | None, spec: QuantizationSpec) -> Self:
        """Return a layer with this weight, which has one scale per output, and bias, (out,) or None."""
        layer = cls(spec).to(quantized.values.device)
        layer.values, layer.scales = quantized.values, quantized.scales.float()
        if bias is not None:
            layer.bias = bias.detach().clone()
        return layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        needs_gradient = torch.is_grad_enabled() and inputs.requires_grad
        if needs_gradient or inputs.device.type != "cpu" or inputs.dtype != torch.float32:
            weight = (self.values * self.scales).to(inputs)
            return linear(inputs, weight, None if self.bias is None else self.bias.to(inputs))
        out: Tensor = torch.ops.quantized.linear_dynamic(inputs, self._kernel(), not supports_products("int8"))
        return out

    def other_weights(self) -> tuple[Tensor, ...]:
        """See `CompressedLayer.other_weights`."""
        return (self.values,) if self.bias is None else (self.values, self.bias)

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`."""
        return PackedQuantized.of(
            QuantizedWeight(self.values, self.scales.half(), self.spec.columns), self.bias, self.spec
        )

    def empty_storage(self, tensors: Mapping[str, Tensor]) -> CompressedLayer | None:
        """See `CompressedLayer.empty_storage`."""
        return PackedQuantized.empty_for(tensors, self.spec) if "codes" in tensors else None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy, without the kernel's packed weight, which the copy packs again."""
        return {**self.__dict__, "_packed": None, "_packed_of": ()}

    def _kernel(self) -> Any:
        tensors = [tensor for tensor in (self.values, self.scales, self.bias) if tensor is not None]
        pointers = tuple(tensor.data_ptr() for tensor in tensors)
        if self._packed is None or self._packed_of != pointers:
            scales = self.scales[:, 0].double()
            zeros = torch.zeros_like(scales, dtype=torch.int64)
            with warnings.catch_warnings():  # torch warns, but offers no other way yet to pass one scale per output
                warnings.simplefilter("ignore", UserWarning)
                weight = torch.quantize_per_channel(self.values * self.scales, scales, zeros, 0, torch.qint8)
            self._packed = torch.ops.quantized.linear_prepack(weight, self.bias)
            self._packed_of = pointers
        return self._packed

    def _load_from_state_dict(self, *args: Any, **others: Any) -> None:
        super()._load_from_state_dict(*args, **others)
        self._packed = None


class PackedQuantized(EntropyCoded):
    """The stored form of a quantized layer: coded integers, shifted to start at zero, and scales."""

    saved_as: ClassVar[str] = "integers"

    spec_class = QuantizationSpec
    spec: QuantizationSpec
    extra_fields: ClassVar[tuple[str, ...]] = ("size", "used", "groups")

    scales: Tensor
    """(rows, groups) float16."""

    def __init__(self, spec: QuantizationSpec, size: int, used: Coding, groups: int) -> None:
        super().__init__(spec, size, used)
        self.register_buffer("scales", torch.zeros(spec.rows, groups, dtype=torch.float16))

    @classmethod
    def of(cls, quantized: QuantizedWeight, bias: Tensor | None, spec: QuantizationSpec) -> Self:
        """Return the stored form of a layer with this weight, and bias, (rows,) or None."""
        numbers = (quantized.values.short() + largest_level(spec.bits)).flatten().to(torch.uint8)
        codes, used = encode_integers(numbers, spec.bits, spec.coding)
        stored = cls(spec, len(codes), used, quantized.scales.shape[1])
        stored.codes, stored.scales = codes, quantized.scales
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    @classmethod
    def empty_for(cls, tensors: Mapping[str, Tensor], spec: QuantizationSpec) -> Self:
        """Return the stored form of a layer of this spec that holds tensors of these shapes."""
        size = len(tensors["codes"])
        return cls(spec, size, coding_used(size, spec.bits, spec.rows * spec.columns), tensors["scales"].shape[1])

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are bit-identical."""
        spec = self.spec
        numbers = decode_integers(self.codes, spec.bits, spec.rows * spec.columns, self.used)
        values = (numbers.short() - largest_level(spec.bits)).to(torch.int8).reshape(spec.rows, spec.columns)
        quantized = QuantizedWeight(values, self.scales.half(), spec.group_size or spec.columns)
        if spec.products == "int8":
            return Int8.of(quantized, self.bias, spec)
        return Quantized.of(quantized.weight().to(self.weight.dtype), self.bias, spec)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "groups": self.scales.shape[1]}
