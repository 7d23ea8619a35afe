"""Quantized weights: 4 or 8 bits each, with a scale for every group of inputs; products stay in float32.

w ≈ s·q with |q| <= 2**(bits − 1) − 1: symmetric, each weight within half a step s of what it was. It makes files
smaller and runs as fast as before. Factors of low rank are first made equally large, which leaves their product as it
is. A pruned layer becomes a quantized one with the same zeros, which training would no longer hold.

Source: Shen et al., "Q-BERT: Hessian Based Ultra Low Precision Quantization of BERT", AAAI 2020, arXiv 1909.05840.
Differs: rounded to the nearest without training; groups are of consecutive inputs of one output.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources
from whet.calibration.sensitivity import equalize
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.layers.quantized import QuantizationSpec, Quantized
from whet.models.surgery import replace
from whet.numerics.coding import Coding

__all__ = ["WeightOnly"]


@dataclass(frozen=True, kw_only=True)
class WeightOnly(Method):
    """Store weights in few bits."""

    bits: Literal[4, 8] = 8
    """Of each weight."""
    group_size: Annotated[int | None, Interval(ge=2)] = None
    """Inputs of an output that share a scale of 16 bits, the last group maybe fewer; all of them, if not given."""
    embeddings: bool = True
    """Whether embeddings are quantized too, a scale for groups of each word's features."""
    include: str = "*"
    """Wildcard over the names of linear layers and embeddings; those that it does not match stay as they are."""
    coding: Coding = "entropy"
    """How whole numbers are stored: all in as many bits (fixed), or frequent ones in fewer (entropy)."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"bits": 4, "group_size": 32}
    mildest: ClassVar[dict[str, Any]] = {"bits": 8, "group_size": 16}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            InvalidModel: a layer has another representation already, or a weight that is not finite.
        """
        found = stored_weights(model, self.include, embeddings=self.embeddings)
        equalize(model, tuple(found.values()))
        for place, name in found.items():
            weight, bias, own = weights_of(model.get_submodule(name))
            form = QuantizationSpec(**asdict(own), bits=self.bits, group_size=self.group_size, coding=self.coding)
            replace(model, place, Quantized.of(form.rounded(weight).weight(), bias, form))
        return model
