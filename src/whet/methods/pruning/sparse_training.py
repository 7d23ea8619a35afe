"""Sparse training: as many weights as at the start, but which ones, the training finds out.

Every `interval` steps each layer drops those of its weights that have become the smallest, and grows as many where the
gradient of the dense weight is the largest, at zero. The share that changes, α/2 · (1 + cos(π t/T)), falls to nothing
at step T; those that are left are then trained to the end. The model learns to answer as the original does.

Source: Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020, arXiv
1911.11134; the shares of layers by `erk` are those of Mocanu et al., 2018, arXiv 1707.04780, as given there.
Differs: it begins with the fine-tuned model's largest weights instead of random ones, or with what an earlier step
has left; steps at which weights change train the others too; with `uniform` the first layer is as sparse as any.
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
from whet.methods.pruning._base import highest
from whet.models.architecture import Architecture, dense_bias, dense_weight, is_dense
from whet.models.layers.base import CompressedLayer
from whet.models.layers.masked import Masked
from whet.models.surgery import replace
from whet.utils.distributed import added_up

__all__ = ["Growing", "SparseTraining", "by_erk", "changing", "rewired"]


@dataclass(frozen=True, kw_only=True)
class SparseTraining(Recovery):
    """Train a sparse model whose zeros move."""

    sparsity: Annotated[float, Interval(ge=0, lt=1)]
    """Share of the matched weights that are zero; layers that an earlier step pruned keep their own share."""
    distribution: Literal["uniform", "erk"] = "uniform"
    """Whether every layer has this share, or weights in proportion to its inputs plus outputs."""
    interval: Annotated[int, Interval(ge=1)] = 100
    """Steps from one change to the next."""
    alpha: Annotated[float, Interval(gt=0, le=1)] = 0.3
    """Share of a layer's weights that the first change may drop."""
    until: Annotated[float, Interval(gt=0, lt=1)] = 0.75
    """Share of the steps after which nothing changes any more."""
    include: str = "*"
    """Wildcard over module names; layers that it does not match stay as they are, and are trained."""

    example: ClassVar[dict[str, Any]] = {"sparsity": 0.5, "epochs": 1, "interval": 2}
    mildest: ClassVar[dict[str, Any]] = {"sparsity": 0.0, "epochs": 1, "learning_rate": 1e-9}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; no copy of a weight or of its gradient is smaller than the dense one."""
        layers = self._begin(model)
        self.train(
            model, resources, after_step=lambda step, steps, optimizer: self._change(layers, step, steps, optimizer)
        )
        for name, layer in layers.items():
            replace(model, name, Masked.of(layer.weight.detach() * layer.active, dense_bias(layer)))
        return model

    def _begin(self, model: nn.Module) -> dict[str, "Growing"]:
        """Put in layers that can change."""
        dense, pruned = _targets(model, self.include)
        weights = {name: dense_weight(layer) for name, layer in dense.items()}
        counts = {name: round((1 - self.sparsity) * weight.numel()) for name, weight in weights.items()}
        if self.distribution == "erk":
            counts = by_erk({name: weight.shape for name, weight in weights.items()}, 1 - self.sparsity)
        begun = {
            name: Growing(weight, dense_bias(dense[name]), highest(weight.abs(), counts[name]))
            for name, weight in weights.items()
        }
        for name, layer in pruned.items():
            weight = layer.linear.weight.detach()
            begun[name] = Growing(weight, dense_bias(layer.linear), weight != 0)
        for name, growing in begun.items():
            replace(model, name, growing)
        return begun

    def _change(self, layers: Mapping[str, "Growing"], step: int, steps: int, optimizer: Optimizer) -> None:
        last = self.until * steps
        if step % self.interval == 0 and step < last:
            share = changing(step / last, self.alpha)
            for layer in layers.values():
                layer.change(share, optimizer)


class Growing(nn.Module):
    """A linear layer while its zeros move; a mask tells the weights that are there from those that are not.

    Weights that are there may be zero: those that have just grown are. It is never saved.
    """

    active: Tensor
    """(out, in) bool, which weights are there."""

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
        # weights that are not there get no gradient; what they would get stays with the product
        self.masked = self.weight * self.active
        self.masked.retain_grad()
        return linear(inputs, self.masked, self.bias)

    @torch.no_grad()
    def change(self, share: float, optimizer: Optimizer) -> None:
        """Drop this share of the weights and grow as many, by the gradient of the last step.

        Args:
            share: 0 to 1.
            optimizer: whose memory of weights that come or go is set to zero, or it would move them.
        """
        if self.masked is None or self.masked.grad is None:
            return
        gradient = added_up(self.masked.grad)
        active = rewired(self.weight, self.active, gradient, round(share * int(self.active.sum())))
        stayed = active & self.active
        self.weight.mul_(stayed)
        for memory in optimizer.state[self.weight].values():
            if isinstance(memory, Tensor) and memory.shape == stayed.shape:
                memory.mul_(stayed)
        self.active.copy_(active)


def rewired(weight: Tensor, active: Tensor, gradient: Tensor, count: int) -> Tensor:
    """Return (out, in) which weights are there once `count` of them have gone and as many have come.

    Args:
        weight: (out, in).
        active: (out, in) bool, which are there; at least `count`.
        gradient: (out, in), of all weights, there or not.
        count: how many; those that go may be among those that come, and then stay.
    """
    stays = highest(weight.abs().masked_fill(~active, -1), int(active.sum()) - count)
    return stays | highest(gradient.abs().masked_fill(stays, -1), count)


def changing(time: float, alpha: float) -> float:
    """Return the share of the weights that changes at this share of the time, 0 to 1: it falls from alpha to zero."""
    return alpha / 2 * (1 + math.cos(math.pi * time))


def by_erk(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, int]:
    """Return how many weights of each layer are there, in proportion to its inputs plus outputs; at most all of them.

    Args:
        shapes: (out, in) of every layer.
        density: share of all weights together that is there.
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
    """The dense layers, those inside compressed ones too, and those that are pruned."""
    own = set(Architecture.of(model).linears)
    dense: dict[str, nn.Module] = {}
    pruned: dict[str, Masked] = {}
    for name, module in model.named_modules():
        if fnmatchcase(name, include):
            parent = model.get_submodule(name.rpartition(".")[0])
            inside = isinstance(parent, CompressedLayer) and not isinstance(parent, Masked)
            if isinstance(module, Masked):
                pruned[name] = module
            elif name in own or (is_dense(module) and inside):
                dense[name] = module
    if not dense and not pruned:
        Architecture.of(model).matching(include)
    return dense, pruned
