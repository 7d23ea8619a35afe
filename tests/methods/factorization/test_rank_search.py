import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.evaluation.timing import Latencies
from whet.methods import _budget
from whet.methods.factorization import _rank_search
from whet.methods.factorization._rank_search import ranks_within_time
from whet.methods.factorization.drone import Drone
from whet.methods.factorization.kfac import Kfac
from whet.methods.factorization.svd import Svd
from whet.models.architecture import Architecture
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.divergence import categorical_kl

REST = 1000.0
"""Time of everything that is not a linear layer, in the units below."""


def flops(module: nn.Module) -> float:
    """A clock that counts multiplications, with a fixed cost for every product."""
    if isinstance(module, LowRank):
        return flops(module.u) + flops(module.v)
    return 50 + float(module.weight.numel()) if isinstance(module, nn.Linear) else 0.0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], float]:
    """Put the counting clock in the place of the real one."""

    def layers(weight: Tensor, ranks: Sequence[int], _batches: Any, *, bias: bool = True) -> Latencies:
        one = 50 + float(weight.numel())
        return Latencies(one, {rank: 100 + float(rank * sum(weight.shape)) for rank in ranks})

    names = Architecture.of(tiny_model("bert")).linears

    def whole(model: nn.Module) -> float:
        return REST + sum(flops(model.get_submodule(name)) for name in names)

    monkeypatch.setattr(_rank_search, "layer_latencies", layers)
    for module in (_rank_search, _budget):
        monkeypatch.setattr(module, "time_models", lambda models, _: np.array([[whole(model) for model in models]]))
    return whole


@pytest.mark.parametrize("allocation", ["by_time", "by_loss", "uniform"])
@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0, 3.0])
def test_the_model_reaches_the_wanted_speedup_and_not_much_more(
    counted: Callable[[nn.Module], float], speedup: float, allocation: Any
):
    model = tiny_model("bert")
    method = Kfac(allocation=allocation, speedup=speedup)
    compressed = method.apply(copy_sharing_parameters(model), Resources(calibration=tiny_batches()))
    reached = counted(model) / counted(compressed)
    assert 0.98 * speedup <= reached <= 1.1 * speedup


@pytest.mark.parametrize("allocation", ["by_time", "by_loss", "uniform"])
def test_a_speedup_that_no_rank_reaches_is_refused_with_the_best(
    counted: Callable[[nn.Module], float], allocation: Any
):
    model = tiny_model("bert")
    fewest = Drone(allocation="ranks", ranks={"*": 1})
    best = counted(model) / counted(fewest.apply(copy_sharing_parameters(model), Resources(calibration=tiny_batches())))
    with pytest.raises(InvalidParameter, match=rf"speedup <= {best:.2f} must hold on this machine, but got speedup=50"):
        Drone(allocation=allocation, speedup=50).apply(
            copy_sharing_parameters(model), Resources(calibration=tiny_batches())
        )


def test_no_choice_within_the_time_loses_less(counted: Callable[[nn.Module], float]):
    model, ranks = tiny_model("bert"), (2, 4, 8)
    names = Architecture.of(model).linears[:4]
    # convex losses, so that hulls hold every rank
    losses = {name: {rank: (i + 1) / rank for rank in ranks} for i, name in enumerate(names)}

    def build(chosen: dict[str, int | None]) -> nn.Module:
        copied = copy_sharing_parameters(model)
        for name, rank in chosen.items():
            if rank is not None:
                dense = model.get_submodule(name)
                setattr(copied.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], thin(dense, rank))
        return copied

    chosen = ranks_within_time(model, losses, [], speedup=1.1, build=build)

    def cost(options: dict[str, int | None]) -> float:
        return counted(build(options))

    def loss(options: dict[str, int | None]) -> float:
        return sum(0.0 if rank is None else losses[name][rank] for name, rank in options.items())

    every = [dict(zip(names, picked, strict=True)) for picked in itertools.product((*ranks, None), repeat=4)]
    within = [loss(options) for options in every if cost(options) <= cost(chosen)]
    # greedy on hulls: at most one step of one layer away from the best
    assert min(within) <= loss(chosen) <= min(within) + max(losses[name][2] - losses[name][4] for name in names)


def thin(dense: nn.Module, rank: int) -> LowRank:
    return LowRank(dense.in_features, dense.out_features, rank, bias=True)


@pytest.mark.parametrize("acceptance", ["cumulative", "fixed"])
def test_accepted_ranks_stay_within_the_allowed_loss(counted: Callable[[nn.Module], float], acceptance: Any):
    model, held_out = tiny_model("bert"), tiny_batches(seed=1)
    resources = Resources(calibration=tiny_batches(), validation=held_out)
    sizes = []
    for allowed in (1e-9, 3e-3, 1e-1, 1e3):
        method = Drone(allocation="algorithm_2", allowed_kl=allowed, acceptance=acceptance)
        compressed = method.apply(copy_sharing_parameters(model), resources)
        answers = []
        with torch.no_grad():
            for one in (model, compressed):
                answers.append(torch.cat([one(**batch).logits for batch in held_out]).numpy())
        assert float(categorical_kl(*answers).mean()) <= allowed
        sizes.append(sum(parameter.numel() for parameter in compressed.parameters()))
    dense = sum(parameter.numel() for parameter in model.parameters())
    assert sizes[0] == dense
    assert sizes == sorted(sizes, reverse=True)
    # with everything allowed, every layer takes the smallest rank of its grid
    least = {name: one.rank for name, one in compressed.named_modules() if isinstance(one, LowRank)}
    assert set(least) == set(Architecture.of(model).linears)
    assert max(least.values()) <= 4


def test_unspent_kl_goes_to_the_next_layer_only_if_cumulative(counted: Callable[[nn.Module], float]):
    model, resources = tiny_model("bert"), Resources(calibration=tiny_batches(), validation=tiny_batches(seed=1))
    sizes = []
    for acceptance in ("cumulative", "fixed"):
        method = Drone(allocation="algorithm_2", allowed_kl=2e-2, acceptance=acceptance)
        compressed = method.apply(copy_sharing_parameters(model), resources)
        sizes.append(sum(parameter.numel() for parameter in compressed.parameters()))
    assert sizes[0] < sizes[1]


def test_needed_resources_follow_from_the_parameters():
    assert Kfac(keep=0.5).reads == {"calibration"}
    assert Svd(keep=0.5).reads == frozenset()
    assert Svd(speedup=2.0).reads == {"calibration"}
    assert Svd(keep=0.5, calibration="sequential").reads == {"calibration"}
    assert Drone(allocation="algorithm_2", allowed_kl=0.1).reads == {"calibration", "validation"}
