"""Half precision: weights of linear layers and embeddings in 16 bits, on disk alone.

Each weight becomes the nearest number of that dtype: bfloat16 has the range of float32 and 8 bits of precision, float16
has 11 bits, up to 65504. Products stay in float32. A pruned layer keeps its zeros, and its other weights take 16 bits.

Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv 1710.03740; Kalamkar et al., "A Study of
BFLOAT16 for Deep Learning Training", 2019, arXiv 1905.12322.
Differs: for storage alone; norms, biases, poolers and heads stay in float32.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidModel
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.layers.halved import HalfForm, HalfPrecision
from whet.models.layers.masked import Masked, MaskedEmbedding
from whet.models.surgery import replace

__all__ = ["Half"]


@dataclass(frozen=True, kw_only=True)
class Half(Method):
    """Store weights in 16 bits."""

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """Of the stored weights."""
    include: str = "*"
    """Wildcard over the names of linear layers and embeddings; those that it does not match stay as they are."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"dtype": "bfloat16"}
    mildest: ClassVar[dict[str, Any]] = {"dtype": "float16"}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            InvalidModel: a layer has another representation already, or a weight is too large for float16.
        """
        found = stored_weights(model, self.include)
        for place, name in found.items():
            dense = model.get_submodule(name)
            weight, bias, own = weights_of(dense)
            form = HalfForm(**asdict(own), dtype=self.dtype)
            half = form.rounded(weight).to(weight.dtype)
            if not half.isfinite().all():
                raise InvalidModel(
                    f"weights must be finite in {self.dtype}, but {name} has {weight.abs().max():g}; take bfloat16"
                )
            if isinstance(model.get_submodule(place), Masked | MaskedEmbedding):
                dense.weight.data = half  # it stores those that are not zero in 16 bits by itself
            else:
                replace(model, place, HalfPrecision.of(half, bias, form))
        return model
