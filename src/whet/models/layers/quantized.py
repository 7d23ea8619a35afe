"""Layers of few bits: stored as whole numbers and scales, run as ordinary layers or by 8-bit kernels."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from whet.models.layers._coded import EntropyCoded
from whet.models.layers.base import CompressedLayer, LayerShape, ReplacesDense, RunsDense
from whet.numerics.coding import Coding, decode_integers, encode_integers
from whet.numerics.rounding import QuantizedWeight, largest_level, quantize_weight
from whet.utils.hardware import supports_products

__all__ = ["Int8", "PackedQuantized", "QuantizationSpec", "Quantized"]


@dataclass(frozen=True)
class QuantizationSpec(LayerShape):
    """An ordinary layer whose weights are whole numbers of steps."""

    bits: int = 8
    """Of each weight."""
    group_size: int | None = None
    """Inputs of an output that share a step; None: all."""
    coding: Coding = "fixed"
    """How the whole numbers are stored."""
    products: Literal["float32", "int8"] = "float32"
    """What it runs by."""

    def rounded(self, weight: Tensor) -> QuantizedWeight:
        """Return a weight in these bits, with scales of 16 bits; one that was rounded so before stays as it is."""
        return quantize_weight(weight, bits=self.bits, group_size=self.group_size, scale_dtype=torch.float16)


class Quantized(RunsDense):
    """Runs as the ordinary layer with rounded weights, and costs no time."""

    forms = QuantizationSpec
    form: QuantizationSpec

    def stored(self) -> CompressedLayer:
        """See `CompressedLayer.stored`; weights that were trained since are stored as they are."""
        weight = self.dense.weight.detach()
        found = self.form.rounded(weight)
        return PackedQuantized.of(found, self.bias, self.form) if torch.equal(found.weight(), weight) else self


class Int8(ReplacesDense):
    """A linear layer that multiplies 8-bit numbers: inputs are rounded with one scale and zero point for a batch.

    Processors without instructions for it would let sums of two products overflow: inputs then have 7 bits. Where
    gradients are asked for, or not on a CPU, it computes with the rounded weight in float.
    """

    forms = QuantizationSpec
    form: QuantizationSpec
    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out, 1) float32."""
    bias: Tensor | None
    """(out,) or None."""

    def __init__(self, form: LayerShape) -> None:
        super().__init__(form)
        self.register_buffer("values", torch.zeros(form.rows, form.columns, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(form.rows, 1))
        self.register_buffer("bias", torch.zeros(form.rows) if form.bias else None)
        self._packed: Any = None
        self._packed_of: tuple[int, ...] = ()

    @classmethod
    def of(cls, found: QuantizedWeight, bias: Tensor | None, form: QuantizationSpec) -> Self:
        """Return the layer with this weight, which has one scale for each output, and bias, (out,) or None."""
        layer = cls(form).to(found.values.device)
        layer.values, layer.scales = found.values, found.scales.float()
        if bias is not None:
            layer.bias = bias.detach().clone()
        return layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        trained = torch.is_grad_enabled() and inputs.requires_grad
        if trained or inputs.device.type != "cpu" or inputs.dtype != torch.float32:
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
            QuantizedWeight(self.values, self.scales.half(), self.form.columns), self.bias, self.form
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies are made from: the kernel's own form of the weight is made again."""
        return {**self.__dict__, "_packed": None, "_packed_of": ()}

    def _kernel(self) -> Any:
        held = [part for part in (self.values, self.scales, self.bias) if part is not None]
        now = tuple(part.data_ptr() for part in held)
        if self._packed is None or self._packed_of != now:
            scales = self.scales[:, 0].double()
            zeros = torch.zeros_like(scales, dtype=torch.int64)
            with warnings.catch_warnings():  # there is no other way yet to tell the kernel one scale for each output
                warnings.simplefilter("ignore", UserWarning)
                weight = torch.quantize_per_channel(self.values * self.scales, scales, zeros, 0, torch.qint8)
            self._packed = torch.ops.quantized.linear_prepack(weight, self.bias)
            self._packed_of = now
        return self._packed

    def _load_from_state_dict(self, *args: Any, **others: Any) -> None:
        super()._load_from_state_dict(*args, **others)
        self._packed = None


class PackedQuantized(EntropyCoded):
    """Whole numbers, stored above the least, and scales of one layer."""

    saved_as: ClassVar[str] = "integers"

    forms = QuantizationSpec
    form: QuantizationSpec
    own: ClassVar[tuple[str, ...]] = ("size", "used", "groups")

    scales: Tensor
    """(rows, groups) float16."""

    def __init__(self, form: QuantizationSpec, size: int, used: Coding, groups: int) -> None:
        super().__init__(form, size, used)
        self.register_buffer("scales", torch.zeros(form.rows, groups, dtype=torch.float16))

    @classmethod
    def of(cls, found: QuantizedWeight, bias: Tensor | None, form: QuantizationSpec) -> Self:
        """Return the stored form of a layer with this weight, and bias, (rows,) or None."""
        numbers = (found.values.short() + largest_level(form.bits)).flatten().to(torch.uint8)
        codes, used = encode_integers(numbers, form.bits, form.coding)
        stored = cls(form, len(codes), used, found.scales.shape[1])
        stored.codes, stored.scales = codes, found.scales
        if bias is not None:
            stored.bias = bias.detach().clone()
        return stored

    def running(self) -> CompressedLayer:
        """See `CompressedLayer.running`; the weights are the same to the bit."""
        form = self.form
        numbers = decode_integers(self.codes, form.bits, form.rows * form.columns, self.used)
        values = (numbers.short() - largest_level(form.bits)).to(torch.int8).reshape(form.rows, form.columns)
        found = QuantizedWeight(values, self.scales.half(), form.group_size or form.columns)
        if form.products == "int8":
            return Int8.of(found, self.bias, form)
        return Quantized.of(found.weight(), self.bias, form)

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {**super().structure(), "groups": self.scales.shape[1]}
