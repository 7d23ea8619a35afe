"""Sensitivity of linear layers to int8: simulate the rounding of a runtime, and find the layers that it harms most.

The simulation rounds weights with one scale per output, and inputs with one scale and zero point per batch, as ONNX
Runtime and PyTorch do.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whet.errors import InvalidModel
from whet.models.inference import predict, removing_hooks
from whet.models.layers.low_rank import LowRank
from whet.numerics.rounding import equalize_factors, quantize_weight
from whet.tasks.data import Batches
from whet.utils.progress import track

__all__ = ["choose_fp32_layers", "equalize_low_rank_layers", "quantization_sensitivity", "simulated_int8"]

LEVELS = 255
"""Quantization steps between the smallest and the largest input."""


def equalize_low_rank_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Equalize the factors of low-rank layers in place, so that quantization loses less; their product is unchanged.

    Args:
        model: the model; layers that share one factor, as query, key and value may, are left out.
        layers: names of linear layers; a low-rank layer is equalized if both of its factors are among them.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, LowRank) and {f"{name}.u", f"{name}.v"} <= {*layers}:
            equalized = equalize_factors(layer.u.weight.detach(), layer.v.weight.detach())
            layer.u.weight.data, layer.v.weight.data = equalized.u, equalized.v


def choose_fp32_layers(
    layers: Sequence[str],
    loss: Callable[[tuple[str, ...]], float],
    order: Callable[[], Sequence[str]],
    max_kl: float,
) -> tuple[str, ...]:
    """Return the layers to keep in fp32 so that the loss is at most `max_kl`: none, or the 1, 2, 4, ... most sensitive.

    Args:
        layers: names of all layers that can run in int8.
        loss: returns the KL in nats with the given layers in int8; its last call gets the chosen layers.
        order: returns all layers, most sensitive first; called only if int8 in all layers loses too much.
        max_kl: the largest acceptable loss, in nats.

    Raises:
        InvalidModel: the loss is too large even with all layers in fp32.
    """
    kept: tuple[str, ...] = ()
    worst: tuple[str, ...] = ()
    while (lost := loss(tuple(name for name in layers if name not in kept))) > max_kl:
        if len(kept) == len(layers):
            raise InvalidModel(
                f"KL must be at most max_kl={max_kl:g}, but got {lost:.2g} with all layers in fp32; allow more"
            )
        worst = worst or tuple(order())
        kept = worst[: max(1, 2 * len(kept))]
    return kept


@contextmanager
def simulated_int8(model: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Run these layers with the weights and inputs that int8 rounding leaves, while the block runs."""
    modules = [model.get_submodule(name) for name in layers]
    originals = [module.weight for module in modules]
    try:
        for module, weight in zip(modules, originals, strict=True):
            transposed = type(module) is not nn.Linear  # GPT-2's Conv1D stores (in, out)
            weight_8 = quantize_weight(weight.detach().T if transposed else weight.detach()).weight()  # type: ignore[operator]
            module.weight = nn.Parameter(weight_8.T.contiguous() if transposed else weight_8, requires_grad=False)
        with removing_hooks([module.register_forward_pre_hook(_round_inputs) for module in modules]):
            yield
    finally:
        for module, weight in zip(modules, originals, strict=True):
            module.weight = weight


def quantization_sensitivity(model: nn.Module, layers: Sequence[str], held_out: Batches) -> list[str]:
    """Return the layers by the mean KL(fp32 ‖ this layer alone in int8), most sensitive first.

    Args:
        model: a model in fp32 and eval mode.
        layers: names of linear layers.
        held_out: held-out examples to compare predictions on.
    """
    baseline = predict(model, held_out)

    def kl_of(name: str) -> float:
        with simulated_int8(model, [name]):
            return float(baseline.divergences(predict(model, held_out)).mean())

    kl = {name: kl_of(name) for name in track(layers, "rounding layers one by one")}
    return sorted(layers, key=lambda name: -kl[name])


def _round_inputs(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    values: Tensor = inputs[0]
    low, high = values.amin().clamp_max(0), values.amax().clamp_min(0)
    scale = (high - low).clamp_min(torch.finfo(values.dtype).tiny) / LEVELS
    zero_point = (-low / scale).round()
    return ((values / scale + zero_point).round().clamp(0, LEVELS) - zero_point) * scale, *inputs[1:]
