"""Products of linear layers in 8 bits: which layers there are, what rounding does to them, and which it harms most.

Weights are rounded with a scale for each output, inputs with one scale and zero point for a batch, as ONNX Runtime and
PyTorch do it.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whet.errors import InvalidModel
from whet.models.inference import predict_logits, removing_hooks
from whet.models.layers.low_rank import LowRank
from whet.numerics.divergence import kl_divergences
from whet.numerics.rounding import equalize_factors, quantize_weight
from whet.tasks.data import Batches
from whet.utils.progress import track

__all__ = ["choose_fp32_layers", "equalize_low_rank_layers", "quantization_sensitivity", "simulated_int8"]

LEVELS = 255
"""Steps between the least and the largest input."""


def equalize_low_rank_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Make the components of low-rank layers' factors equally large in place, where both are among these layers.

    The products stay what they are, and rounding the factors loses less of them. Layers that read one thin layer in
    common stay as they are.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, LowRank) and {f"{name}.u", f"{name}.v"} <= {*layers}:
            found = equalize_factors(layer.u.weight.detach(), layer.v.weight.detach())
            layer.u.weight.data, layer.v.weight.data = found.u, found.v


def choose_fp32_layers(
    layers: Sequence[str],
    loss: Callable[[tuple[str, ...]], float],
    order: Callable[[], Sequence[str]],
    max_kl: float,
) -> tuple[str, ...]:
    """Return the layers that stay in fp32 so that no more than `max_kl` is lost: none, or 1, 2, 4, ... of the worst.

    Args:
        layers: all that could be in 8 bits.
        loss: what is lost with these layers in 8 bits; called last with the layers that are chosen.
        order: all layers, those that are harmed most first; asked for if too much is lost with all in 8 bits.
        max_kl: the most that may be lost.

    Raises:
        InvalidModel: too much is lost even with all layers in fp32.
    """
    kept: tuple[str, ...] = ()
    worst: tuple[str, ...] = ()
    while (lost := loss(tuple(name for name in layers if name not in kept))) > max_kl:
        if len(kept) == len(layers):
            raise InvalidModel(
                f"at most max_kl={max_kl:g} must be lost, but {lost:.2g} is with all layers in fp32; allow more"
            )
        worst = worst or tuple(order())
        kept = worst[: max(1, 2 * len(kept))]
    return kept


@contextmanager
def simulated_int8(model: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Let these layers compute with what 8 bits leave of their inputs and weights, while the block runs."""
    own = [model.get_submodule(name) for name in layers]
    whole = [module.weight for module in own]
    try:
        for module, weight in zip(own, whole, strict=True):
            turned = type(module) is not nn.Linear  # GPT-2's (in, out)
            weight_8 = quantize_weight(weight.detach().T if turned else weight.detach()).weight()  # type: ignore[operator]
            module.weight = nn.Parameter(weight_8.T.contiguous() if turned else weight_8, requires_grad=False)
        with removing_hooks([module.register_forward_pre_hook(_round_inputs) for module in own]):
            yield
    finally:
        for module, weight in zip(own, whole, strict=True):
            module.weight = weight


def quantization_sensitivity(model: nn.Module, layers: Sequence[str], held_out: Batches) -> list[str]:
    """Return the layers by the mean KL(whole ‖ with that layer alone in 8 bits), the largest first.

    Args:
        model: in fp32 and eval mode.
        layers: names of linear layers.
        held_out: what the answers are compared on.
    """
    wanted = predict_logits(model, held_out)

    def harm(name: str) -> float:
        with simulated_int8(model, [name]):
            return float(np.mean(kl_divergences(wanted, predict_logits(model, held_out))))

    harms = {name: harm(name) for name in track(layers, "rounding layers one by one")}
    return sorted(layers, key=lambda name: -harms[name])


def _round_inputs(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    values: Tensor = inputs[0]
    least, most = values.amin().clamp_max(0), values.amax().clamp_min(0)
    scale = (most - least).clamp_min(torch.finfo(values.dtype).tiny) / LEVELS
    zero = (-least / scale).round()
    return ((values / scale + zero).round().clamp(0, LEVELS) - zero) * scale, *inputs[1:]
