"""Weight-only quantization: weights take 4 or 8 bits, with a scale for every group of inputs; products stay in float32.

Symmetric rounding, w ≈ s·q with |q| <= 2**(bits − 1) − 1, moves each weight by at most half a step s. Files become
smaller; the speed stays the same. The two factors of a low-rank layer are first scaled to equal norms, which leaves
their product unchanged. A pruned layer becomes a quantized layer with the same zeros.

Source: Shen et al., "Q-BERT: Hessian Based Ultra Low Precision Quantization of BERT", AAAI 2020, arXiv 1909.05840.
Differs: weights are rounded to the nearest step without training; a group is a run of consecutive inputs of one output.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources
from whet.calibration.sensitivity import equalize_low_rank_layers
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.layers.quantized import QuantizationSpec, Quantized
from whet.models.surgery import replace_module
from whet.numerics.coding import Coding

__all__ = ["WeightOnly"]


@dataclass(frozen=True, kw_only=True)
class WeightOnly(Method):
    """Store weights in few bits."""

    bits: Literal[4, 8] = 8
    """Number of bits of each weight."""
    group_size: Annotated[int | None, Interval(ge=2, le=1_000_000)] = None
    """Number of consecutive inputs of an output that share one 16-bit scale, e.g. 32; if not given, all inputs of an
    output share one."""
    embeddings: bool = True
    """Whether to quantize embeddings too, in groups of each word's features."""
    include: str = "*"
    """Wildcard over the names of linear layers and embeddings; those that do not match stay in float32."""
    coding: Coding = "entropy"
    """How to store integers on disk: fixed gives all the same number of bits, entropy gives frequent ones fewer
    bits."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"bits": 4, "group_size": 32}
    mildest: ClassVar[dict[str, Any]] = {"bits": 8, "group_size": 16}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            InvalidModel: a layer is already quantized, halved or clustered, or a weight is not finite.
            NothingToCompress: no layer matches.
        """
        dense_names = stored_weights(model, self.include, embeddings=self.embeddings)
        equalize_low_rank_layers(model, tuple(dense_names.values()))
        for name, dense in dense_names.items():
            weight, bias, shape = weights_of(model.get_submodule(dense))
            spec = QuantizationSpec(**asdict(shape), bits=self.bits, group_size=self.group_size, coding=self.coding)
            replace_module(model, name, Quantized.of(spec.rounded(weight).weight(), bias, spec))
        return model
