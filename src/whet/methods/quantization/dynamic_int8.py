"""Dynamic int8 quantization in PyTorch: weights are rounded once, inputs with the range of each batch.

The linear layers of the blocks, including the factors of compressed layers, multiply 8-bit integers: w ≈ s·q with one
scale per output, and one scale and zero point for the inputs of a batch. This saves memory, and time on processors with
int8 instructions. The two factors of a low-rank layer are first scaled to equal norms. With `max_kl`, the layers that
lose most by rounding stay in float32, as many as are needed to keep the mean KL on held-out training data within it.
A pruned layer keeps its zeros, but stores them like other weights instead of as a bit mask.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877; Zafrir et al., "Q8BERT: Quantized 8Bit BERT", 2019, arXiv 1910.06188.
Differs: nothing is trained; each output has its own scale; layers that lose most can stay in float32.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import nn

from whet.calibration.resources import Resources
from whet.calibration.sensitivity import choose_fp32_layers, equalize_low_rank_layers, quantization_sensitivity
from whet.errors import MissingResource, NothingToCompress
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.inference import predict
from whet.models.layers.quantized import Int8, QuantizationSpec
from whet.models.surgery import replace_module
from whet.numerics.coding import Coding
from whet.utils.ranges import MaxKl

__all__ = ["DynamicInt8"]


@dataclass(frozen=True, kw_only=True)
class DynamicInt8(Method):
    """Run linear layers in 8-bit integers."""

    max_kl: MaxKl | None = None
    """Largest mean KL divergence on held-out training data, in nats, e.g. 0.01; the layers that lose most stay in
    float32 so that the model meets it."""
    include: str = "*"
    """Wildcard over the names of linear layers; layers that do not match stay in float32."""
    coding: Coding = "entropy"
    """How to store integers on disk: fixed gives all the same number of bits, entropy gives frequent ones fewer
    bits."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {}
    mildest: ClassVar[dict[str, Any]] = {"max_kl": 3e-4}

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; `max_kl` needs held-out data."""
        return self.needs | ({"validation"} if self.max_kl is not None else frozenset())

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            InvalidModel: a layer is already quantized, halved or clustered, or a weight is not finite.
            MissingResource: `max_kl` is given without held-out data.
            NothingToCompress: no layer matches, or `max_kl` allows to round none.
        """
        dense_names = stored_weights(model, self.include, embeddings=False)
        equalize_low_rank_layers(model, tuple(dense_names.values()))
        originals = {name: model.get_submodule(name) for name in dense_names}
        quantized = {name: self._layer(model.get_submodule(dense)) for name, dense in dense_names.items()}

        def quantize(chosen: tuple[str, ...]) -> None:
            for name in dense_names:
                replace_module(model, name, quantized[name] if name in chosen else originals[name])

        if self.max_kl is None:
            quantize(tuple(dense_names))
            return model
        held_out = resources.validation
        if held_out is None:
            raise MissingResource("max_kl needs held-out training data, but got none; give --task")
        reference = predict(model, held_out)

        def loss(chosen: tuple[str, ...]) -> float:
            quantize(chosen)
            return float(reference.divergences(predict(model, held_out)).mean())

        def order() -> list[str]:
            quantize(())
            names = {dense: name for name, dense in dense_names.items()}
            return [names[dense] for dense in quantization_sensitivity(model, [*names], held_out)]

        if len(choose_fp32_layers(tuple(dense_names), loss, order, self.max_kl)) == len(dense_names):
            raise NothingToCompress(f"max_kl={self.max_kl:g} must leave layers to round, but got none; allow more")
        return model

    def _layer(self, dense: nn.Module) -> Int8:
        weight, bias, shape = weights_of(dense)
        spec = QuantizationSpec(**asdict(shape), coding=self.coding, products="int8")
        return Int8.of(spec.rounded(weight), bias, spec)
