"""Half precision: the weights of linear layers and embeddings take 16 bits on disk.

Each weight is rounded to the nearest number of the dtype: bfloat16 has the range of float32 and 8 bits of precision;
float16 has 11 bits of precision and a range up to 65504. Products stay in float32. A pruned layer keeps its zeros, and
its other weights take 16 bits.

Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv 1710.03740; Kalamkar et al., "A Study of
BFLOAT16 for Deep Learning Training", 2019, arXiv 1905.12322.
Differs: 16 bits are used for storage alone; norms, biases, poolers and heads stay in float32.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidModel
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.layers.halved import HalfPrecision, HalfSpec
from whet.models.layers.masked import Masked, MaskedEmbedding
from whet.models.surgery import replace_module

__all__ = ["Half"]


@dataclass(frozen=True, kw_only=True)
class Half(Method):
    """Store weights in 16 bits."""

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """Data type of the stored weights; bfloat16 has the wider range, float16 the higher precision."""
    include: str = "*"
    """Wildcard over the names of linear layers and embeddings; those that do not match stay in float32."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"dtype": "bfloat16"}
    mildest: ClassVar[dict[str, Any]] = {"dtype": "float16"}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            InvalidModel: a layer is already quantized, halved or clustered, or a weight is too large for float16.
            NothingToCompress: no layer matches.
        """
        for outer, name in stored_weights(model, self.include).items():
            dense = model.get_submodule(name)
            weight, bias, shape = weights_of(dense)
            spec = HalfSpec(**asdict(shape), dtype=self.dtype)
            half = spec.rounded(weight).to(weight.dtype)
            if not half.isfinite().all():
                raise InvalidModel(
                    f"weights must be finite in {self.dtype}, but got {weight.abs().max():g} in {name}; "
                    "give dtype=bfloat16"
                )
            if isinstance(model.get_submodule(outer), Masked | MaskedEmbedding):
                dense.weight.data = half  # a pruned layer stores weights that 16 bits hold exactly in 16 bits
            else:
                replace_module(model, outer, HalfPrecision.of(half, bias, spec))
        return model
