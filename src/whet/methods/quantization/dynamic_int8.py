"""Products of 8-bit numbers in PyTorch: weights rounded once, inputs with a range taken from each batch.

Linear layers of the blocks, factors of compressed ones too, multiply whole numbers, w ≈ s·q for each output and one
scale and zero point for a batch's inputs. Processors with instructions for it gain time and memory. Factors of low rank
are first made equally large. With `max_kl`, the layers that rounding harms most stay in float32 until the mean KL on
held-out training data is met. A pruned layer keeps its zeros, and no longer stores its place in bits.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877; Zafrir et al., "Q8BERT: Quantized 8Bit BERT", 2019, arXiv 1910.06188.
Differs: without training; a scale for each output; layers can stay in float32 by what they cost.
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources
from whet.calibration.sensitivity import choose_fp32_layers, equalize, quantization_sensitivity
from whet.errors import MissingResource, NothingToCompress
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.inference import predict_logits
from whet.models.layers.quantized import Int8, QuantizationSpec
from whet.models.surgery import replace
from whet.numerics.coding import Coding
from whet.numerics.divergence import divergences

__all__ = ["DynamicInt8"]


@dataclass(frozen=True, kw_only=True)
class DynamicInt8(Method):
    """Let linear layers multiply 8-bit numbers."""

    max_kl: Annotated[float | None, Interval(gt=0, lt=math.inf)] = None
    """Largest mean KL on held-out training data, in nats; layers that cost most stay in float32 until it is met."""
    include: str = "*"
    """Wildcard over the names of linear layers; those that it does not match stay as they are."""
    coding: Coding = "entropy"
    """How whole numbers are stored: all in as many bits (fixed), or frequent ones in fewer (entropy)."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {}
    mildest: ClassVar[dict[str, Any]] = {"max_kl": 3e-4}

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; held-out data say what is lost, where that is limited."""
        return self.needs | ({"validation"} if self.max_kl is not None else frozenset())

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            InvalidModel: a layer has another representation already, or a weight that is not finite.
            NothingToCompress: `max_kl` leaves no layer.
        """
        found = stored_weights(model, self.include, embeddings=False)
        equalize(model, tuple(found.values()))
        before = {place: model.get_submodule(place) for place in found}
        layers = {place: self._layer(model.get_submodule(name)) for place, name in found.items()}

        def put(chosen: tuple[str, ...]) -> None:
            for place in found:
                replace(model, place, layers[place] if place in chosen else before[place])

        if self.max_kl is None:
            put(tuple(found))
            return model
        held_out = resources.validation
        if held_out is None:
            raise MissingResource("max_kl needs held-out training data, but got none; give --task")
        wanted = predict_logits(model, held_out)

        def loss(chosen: tuple[str, ...]) -> float:
            put(chosen)
            return float(np.mean(divergences(wanted, predict_logits(model, held_out))))

        def order() -> list[str]:
            put(())
            place_of = {name: place for place, name in found.items()}
            return [place_of[name] for name in quantization_sensitivity(model, [*place_of], held_out)]

        if len(choose_fp32_layers(tuple(found), loss, order, self.max_kl)) == len(found):
            raise NothingToCompress(f"max_kl={self.max_kl:g} must leave layers to round, but got none; allow more")
        return model

    def _layer(self, dense: nn.Module) -> Int8:
        weight, bias, own = weights_of(dense)
        form = QuantizationSpec(**asdict(own), coding=self.coding, products="int8")
        return Int8.of(form.rounded(weight), bias, form)
