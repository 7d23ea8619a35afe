"""Models whose checkpoint has 16 bits per weight: whet computes with them in fp32, and stores them in 16 bits again.

That a model is one shows in its weights: every matrix is the same in 16 bits. What methods compute in fp32, such as
factors, is rounded to the nearer of float16 and bfloat16, matrix by matrix. Files then hold 16 bits without any loss,
and the model runs in fp32 as before.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from whet.models.layers.base import RunsDense
from whet.numerics.coding import to_narrowest_dtype

__all__ = ["has_sixteen_bits", "in_sixteen_bits", "round_to_sixteen_bits"]


def has_sixteen_bits(model: nn.Module) -> bool:
    """Return whether every fp32 matrix of a model is the same in 16 bits, and it has one that is not zero.

    Layers whose method chose how they are stored do not count.
    """
    seen = False
    for matrix in _matrices(model):
        if to_narrowest_dtype(matrix).element_size() > 2:
            return False
        seen = seen or bool(matrix.any())
    return seen


def round_to_sixteen_bits(model: nn.Module) -> None:
    """Round every fp32 matrix, in place, to the dtype of 16 bits that is nearer to it; values stay finite."""
    for matrix in _matrices(model):
        rounded = [matrix.to(dtype).float() for dtype in (torch.float16, torch.bfloat16)]
        errors = [float((one - matrix).square().sum()) for one in rounded]
        # float16 overflows to infinity, whose error is larger than any
        matrix.copy_(rounded[0] if errors[0] <= errors[1] else rounded[1])


def in_sixteen_bits(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with fp32 matrices in 16 bits where that changes none of their values; tied ones stay tied."""
    known: dict[tuple[int, torch.Size], Tensor] = {}

    def narrow(weight: Tensor) -> Tensor:
        if weight.dtype != torch.float32 or weight.dim() < 2:
            return weight
        return known.setdefault((weight.data_ptr(), weight.shape), to_narrowest_dtype(weight))

    return {name: narrow(weight) for name, weight in weights.items()}


def _matrices(model: nn.Module) -> Iterator[Tensor]:
    chosen = {id(weight) for layer in model.modules() if isinstance(layer, RunsDense) for weight in layer.parameters()}
    for weight in model.parameters():
        if weight.dim() > 1 and weight.dtype == torch.float32 and id(weight) not in chosen:
            yield weight.detach()
