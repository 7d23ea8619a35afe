"""Sequential calibration: fit the factors again, in forward order, to the inputs that the compressed model gives them.

The targets y are the outputs of the baseline's layer; the inputs x are those of the compressed model. With Bx the best
linear prediction of y, the error of any W' splits into E‖y − Bx‖² + E‖(B − W')x‖². The best W' of rank k is therefore
the best rank-k part of B in the metric of Cov(x), which is reduced-rank regression. If a method weighs outputs in
another metric, its inner factor v stays, and the outer factor u = Cov(y, vx) Cov(vx)⁻¹ is optimal in every metric. The
bias corrects the means.

Source: Izenman, "Reduced-rank regression for the multivariate linear model", Journal of Multivariate Analysis 5, 1975,
doi 10.1016/0047-259X(75)90042-1; Wang, Zheng, Wan, Zhang, "SVD-LLM", 2024, arXiv 2403.07378, for the outer factor.
Differs: a small ridge, since inputs can be rank-deficient; padding tokens are left out.
"""

from collections.abc import Callable, Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from whet.errors import InvalidModel
from whet.models.architecture import changes_length, rows_read
from whet.models.first_token import first_token_layers
from whet.models.inference import model_inputs, removing_hooks
from whet.models.layers.low_rank import LowRank
from whet.numerics.reduced_rank import outer_factor, reduced_rank_regression
from whet.tasks.data import Batches
from whet.utils.progress import track

__all__ = ["Refit", "refit"]


class Refit(Enum):
    """Which factors are fitted again."""

    BOTH = "both"
    """Both factors, by reduced-rank regression."""
    OUTER = "outer"
    """The outer factor u alone."""


class _Joint:
    """Running sums over pairs of inputs x and outputs y: fp32 products, float64 sums."""

    def __init__(self) -> None:
        self.count = 0
        self.x = self.y = self.xx = self.yx = torch.zeros(())

    def add(self, x: Tensor, y: Tensor) -> None:
        self.count += len(x)
        self.x = self.x + x.sum(0).double()
        self.y = self.y + y.sum(0).double()
        self.xx = self.xx + (x.T @ x).double()
        self.yx = self.yx + (y.T @ x).double()


def refit(model: nn.Module, original: nn.Module, batches: Batches, layers: Sequence[str], *, what: Refit) -> None:
    """Fit the low-rank layers of `model` again, in place.

    Args:
        model: the compressed model, whose low-rank layers share no weights with `original`.
        original: the same model with dense layers.
        batches: the calibration data; padding is left out.
        layers: names of the low-rank layers, in forward order.
        what: which factors to fit.

    Raises:
        InvalidModel: a layer does not see one row per token in one call.
    """
    for group in track(_same_input(model, batches, layers), "fitting to compressed inputs"):
        for name, sums in _joint(model, original, batches, group).items():
            layer = model.get_submodule(name)
            assert isinstance(layer, LowRank)
            mean_x, mean_y = sums.x / sums.count, sums.y / sums.count
            inputs = sums.xx / sums.count - mean_x.outer(mean_x)
            cross = sums.yx / sums.count - mean_y.outer(mean_x)
            v = layer.v.weight.detach().double()
            u, v = (
                reduced_rank_regression(cross, inputs, len(v))
                if what is Refit.BOTH
                else (outer_factor(cross, inputs, v), v)
            )
            _write_factors(layer, u, v, mean_y - u @ (v @ mean_x))


@torch.no_grad()
def _write_factors(layer: LowRank, u: Tensor, v: Tensor, bias: Tensor) -> None:
    layer.u.weight.copy_(u)
    layer.v.weight.copy_(v)
    layer.u.bias = nn.Parameter(bias.to(layer.u.weight))


def _same_input(model: nn.Module, batches: Batches, layers: Sequence[str]) -> list[list[str]]:
    """Return the layers grouped by the tensor that they read, in forward order."""
    groups: list[list[str]] = []
    seen: list[Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add_to_group(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if seen and seen[-1] is inputs[0]:
                groups[-1].append(name)
            else:
                seen[:] = [inputs[0]]
                groups.append([name])

        return add_to_group

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in layers]
    with removing_hooks(handles), torch.inference_mode():
        model(**model_inputs(batches.batches[0], model))
    return groups


def _joint(model: nn.Module, original: nn.Module, batches: Batches, group: Sequence[str]) -> dict[str, _Joint]:
    """Return the sums over inputs in the compressed model and outputs in the original, for one group of layers."""
    sums = {name: _Joint() for name in group}
    first_alone = first_token_layers(model)
    seen: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(group[0]).register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0])),
        *(
            original.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, out, name=name: seen.update({name: out})
            )
            for name in group
        ),
    ]
    with removing_hooks(handles), torch.inference_mode():
        for batch in batches:
            inputs = model_inputs(batch, model)
            model(**inputs)
            original(**inputs)
            mask = batch["attention_mask"].bool().to(seen["x"].device)
            rows = seen["x"][..., 0].numel()
            per_example = rows // len(mask) if changes_length(model) else 0
            is_token = rows_read(group[0], mask, first_alone, rows=per_example).reshape(-1)
            if rows != len(is_token):
                raise InvalidModel(
                    f"{group[0]} must see one row per token in one call, but got inputs of {tuple(seen['x'].shape)}; "
                    "give calibration=one_shot, or leave the layer out with include"
                )
            x = seen["x"].reshape(len(is_token), -1)[is_token]
            for name in group:
                sums[name].add(x, seen[name].reshape(len(is_token), -1)[is_token])
    return sums
