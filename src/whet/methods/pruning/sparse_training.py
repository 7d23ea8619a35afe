"""Sparse training: the number of non-zero weights is fixed, and training moves them between positions.

Every `interval` steps, each layer drops its smallest weights and grows as many new ones, starting at zero, where the
gradient of the dense weight is largest. The fraction that moves, α/2 · (1 + cos(π t/T)), falls to zero at step T; the
remaining weights are then trained to the end. The model is distilled from the baseline.

Source: Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020, arXiv
1911.11134, which also gives the distribution `erk`, after Mocanu et al., 2018, arXiv 1707.04780.
Differs: training starts from the largest weights of the fine-tuned model, or from the weights that an earlier pruning
step left, instead of random ones; steps that move weights also train the others; with `uniform`, the first layer is as
sparse as the others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.optim import Optimizer

from whet.calibration.resources import Resources
from whet.methods._recovery import Recovery
from whet.methods.pruning._base import top_mask
from whet.models.architecture import Architecture, dense_bias, dense_weight, is_dense
from whet.models.layers.base import CompressedLayer
from whet.models.layers.masked import Masked
from whet.models.surgery import replace_module
from whet.utils.distributed import sum_over_processes

__all__ = ["RewiredLinear", "SparseTraining", "erk_counts", "moved_fraction", "rewired_mask"]


@dataclass(frozen=True, kw_only=True)
class SparseTraining(Recovery):
    """Train a sparse model while its zeros move."""

    sparsity: Annotated[float, Interval(ge=0, lt=1)]
    """Fraction of the matched weights that is zero, e.g. 0.5; layers that an earlier step pruned keep their own
    sparsity."""
    distribution: Literal["uniform", "erk"] = "uniform"
    """How to spread the weights: uniform gives every layer the same sparsity, erk keeps weights in proportion to a
    layer's inputs plus outputs."""
    interval: Annotated[int, Interval(ge=1, le=1_000_000_000)] = 100
    """Optimizer steps between two moves of weights."""
    alpha: Annotated[float, Interval(gt=0, le=1)] = 0.3
    """Fraction of a layer's non-zero weights that the first move may drop, e.g. 0.3; it falls to zero."""
    until: Annotated[float, Interval(gt=0, lt=1)] = 0.75
    """Fraction of the training steps after which weights stop moving, e.g. 0.75."""
    include: str = "*"
    """Wildcard over the names of linear layers; layers that do not match stay dense, and are trained too."""

    example: ClassVar[dict[str, Any]] = {"sparsity": 0.5, "epochs": 1, "interval": 2}
    mildest: ClassVar[dict[str, Any]] = {"sparsity": 0.0, "epochs": 1, "learning_rate": 1e-9}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; during training, weights and gradients take as much memory as dense ones."""
        layers = self._begin(model)
        self.train(
            model, resources, after_step=lambda step, steps, optimizer: self._change(layers, step, steps, optimizer)
        )
        for name, layer in layers.items():
            replace_module(model, name, Masked.of(layer.weight.detach() * layer.active, dense_bias(layer)))
        return model

    def _begin(self, model: nn.Module) -> dict[str, "RewiredLinear"]:
        """Replace the layers by ones whose zeros can move; return these by name."""
        dense, pruned = _targets(model, self.include)
        weights = {name: dense_weight(layer) for name, layer in dense.items()}
        counts = {name: round((1 - self.sparsity) * weight.numel()) for name, weight in weights.items()}
        if self.distribution == "erk":
            counts = erk_counts({name: weight.shape for name, weight in weights.items()}, 1 - self.sparsity)
        rewired = {
            name: RewiredLinear(weight, dense_bias(dense[name]), top_mask(weight.abs(), counts[name]))
            for name, weight in weights.items()
        }
        for name, layer in pruned.items():
            weight = layer.linear.weight.detach()
            rewired[name] = RewiredLinear(weight, dense_bias(layer.linear), weight != 0)
        for name, growing in rewired.items():
            replace_module(model, name, growing)
        return rewired

    def _change(self, layers: Mapping[str, "RewiredLinear"], step: int, steps: int, optimizer: Optimizer) -> None:
        last = self.until * steps
        if step % self.interval == 0 and step < last:
            fraction = moved_fraction(step / last, self.alpha)
            for layer in layers.values():
                layer.change(fraction, optimizer)


class RewiredLinear(nn.Module):
    """A linear layer whose zeros move during training; it is never saved.

    A mask marks the active weights. An active weight can be zero: a weight that has just grown is.
    """

    active: Tensor
    """(out, in) bool, true where a weight is active."""

    def __init__(self, weight: Tensor, bias: Tensor | None, active: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight * active)
        self.bias = None if bias is None else nn.Parameter(bias.clone())
        self.register_buffer("active", active)
        self.masked: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        if not torch.is_grad_enabled():
            return linear(inputs, self.weight, self.bias)
        # inactive weights get no gradient; the product keeps the gradient of all weights, which `change` reads
        self.masked = self.weight * self.active
        self.masked.retain_grad()
        return linear(inputs, self.masked, self.bias)

    @torch.no_grad()
    def change(self, share: float, optimizer: Optimizer) -> None:
        """Drop the smallest active weights and grow as many, by the gradient of the last step.

        Args:
            share: fraction of the active weights to move, 0 to 1.
            optimizer: its state for moved weights is set to zero; otherwise its momentum would change them.
        """
        if self.masked is None or self.masked.grad is None:
            return
        gradient = sum_over_processes(self.masked.grad)
        active = rewired_mask(self.weight, self.active, gradient, round(share * int(self.active.sum())))
        stayed = active & self.active
        self.weight.mul_(stayed)
        for memory in optimizer.state[self.weight].values():
            if isinstance(memory, Tensor) and memory.shape == stayed.shape:
                memory.mul_(stayed)
        self.active.copy_(active)


def rewired_mask(weight: Tensor, active: Tensor, gradient: Tensor, count: int) -> Tensor:
    """Return the mask, (out, in) bool, after `count` active weights are dropped and as many are grown.

    Args:
        weight: (out, in).
        active: (out, in) bool, with at least `count` active weights.
        gradient: (out, in), the gradient of all weights, active or not.
        count: number of weights to move; a dropped weight may grow again, and then stays.
    """
    stays = top_mask(weight.abs().masked_fill(~active, -1), int(active.sum()) - count)
    return stays | top_mask(gradient.abs().masked_fill(stays, -1), count)


def moved_fraction(time: float, alpha: float) -> float:
    """Return the fraction of the weights to move at `time`, 0 to 1: it falls from alpha to zero along a cosine."""
    return alpha / 2 * (1 + math.cos(math.pi * time))


def erk_counts(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, int]:
    """Return the number of active weights of each layer, in proportion to its inputs plus outputs.

    A layer that would get more weights than it has keeps all, and the other layers share the rest.

    Args:
        shapes: (out, in) of every layer, by name.
        density: fraction of all weights together that is active.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in full]
        left = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        total = sum(sum(shapes[name]) for name in rest)
        counts = {name: left * sum(shapes[name]) / total for name in rest}
        over = {name for name in rest if counts[name] > sizes[name]}
        if not over:
            return {name: sizes[name] if name in full else round(counts[name]) for name in shapes}
        full |= over


def _targets(model: nn.Module, include: str) -> tuple[dict[str, nn.Module], dict[str, Masked]]:
    """Return the matching dense layers, including those inside compressed layers, and the pruned layers, by name."""
    linears = set(Architecture.of(model).linears)
    dense: dict[str, nn.Module] = {}
    pruned: dict[str, Masked] = {}
    for name, module in model.named_modules():
        if fnmatchcase(name, include):
            parent = model.get_submodule(name.rpartition(".")[0])
            inside = isinstance(parent, CompressedLayer) and not isinstance(parent, Masked)
            if isinstance(module, Masked):
                pruned[name] = module
            elif name in linears or (is_dense(module) and inside):
                dense[name] = module
    if not dense and not pruned:
        Architecture.of(model).matching(include)
    return dense, pruned
