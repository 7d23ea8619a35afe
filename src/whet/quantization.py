"""Products of linear layers in 8 bits: which layers there are, what rounding does to them, and which it harms most.

Weights are rounded with a scale for each output, w ≈ s·q with |q| <= 127 and s = max|w| / 127; inputs with one scale
and zero point for a batch, as ONNX Runtime and PyTorch do it.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from whet.architecture import Architecture, is_dense
from whet.divergence import divergences
from whet.errors import InvalidModel
from whet.passes import answers, hooked
from whet.progress import track
from whet.resources import Batches

__all__ = ["Rounded", "by_harm", "products", "rounded", "simulated"]

MOST = 127
"""Largest of the 8-bit weights; -128 is left out, so that both signs are alike."""
LEVELS = 255
"""Steps between the least and the largest input."""


class Rounded(NamedTuple):
    """A weight in 8 bits."""

    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out,); an output without weights has 1."""

    def weight(self) -> Tensor:
        """Return the weight that it stands for, (out, in), in the dtype of the scales."""
        return self.values.to(self.scales) * self.scales[:, None]


def rounded(weight: Tensor) -> Rounded:
    """Return a weight (out, in) in 8 bits, each within half a step of what it was."""
    largest = weight.abs().amax(1)
    scales = torch.where(largest > 0, largest / MOST, torch.ones_like(largest))
    return Rounded((weight / scales[:, None]).round().to(torch.int8), scales)


def products(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the linear layers inside the blocks, factors of compressed ones too, in module order.

    Embeddings, poolers and heads are none of them. A model without blocks has none.
    """
    try:
        blocks = Architecture.of(model).blocks
    except InvalidModel:
        return ()
    return tuple(
        name
        for block in blocks
        for name, module in model.get_submodule(block).named_modules(prefix=block)
        if is_dense(module)
    )


@contextmanager
def simulated(model: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Let these layers compute with what 8 bits leave of their inputs and weights, while the block runs."""
    own = [model.get_submodule(name) for name in layers]
    whole = [module.weight for module in own]
    try:
        for module, weight in zip(own, whole, strict=True):
            turned = type(module) is not nn.Linear  # GPT-2's (in, out)
            weight_8 = rounded(weight.detach().T if turned else weight.detach()).weight()  # type: ignore[operator]
            module.weight = nn.Parameter(weight_8.T.contiguous() if turned else weight_8, requires_grad=False)
        with hooked([module.register_forward_pre_hook(_round_inputs) for module in own]):
            yield
    finally:
        for module, weight in zip(own, whole, strict=True):
            module.weight = weight


def by_harm(model: nn.Module, layers: Sequence[str], held_out: Batches) -> list[str]:
    """Return the layers by the mean KL(whole ‖ with that layer alone in 8 bits), the largest first.

    Args:
        model: in fp32 and eval mode.
        layers: names of linear layers.
        held_out: what the answers are compared on.
    """
    wanted = answers(model, held_out)

    def harm(name: str) -> float:
        with simulated(model, [name]):
            return float(np.mean(divergences(wanted, answers(model, held_out))))

    harms = {name: harm(name) for name in track(layers, "rounding layers one by one")}
    return sorted(layers, key=lambda name: -harms[name])


def _round_inputs(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    values: Tensor = inputs[0]
    least, most = values.amin().clamp_max(0), values.amax().clamp_min(0)
    scale = (most - least).clamp_min(torch.finfo(values.dtype).tiny) / LEVELS
    zero = (-least / scale).round()
    return ((values / scale + zero).round().clamp(0, LEVELS) - zero) * scale, *inputs[1:]
