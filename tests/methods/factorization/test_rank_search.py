import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.evaluation import timing
from whet.evaluation.timing import Latencies, layer_latencies, representative_batches, time_interleaved
from whet.methods import _budget
from whet.methods.factorization import _rank_search
from whet.methods.factorization._rank_search import ranks_within_time
from whet.methods.factorization.drone import Drone
from whet.methods.factorization.kfac import Kfac
from whet.methods.factorization.svd import Svd
from whet.models.architecture import Architecture
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.divergence import kl_divergences

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

    def whole(model: nn.Module) -> float:
        names = Architecture.of(tiny_model("bert")).linears
        return REST + sum(flops(model.get_submodule(name)) for name in names)

    monkeypatch.setattr(_rank_search, "layer_latencies", layers)
    for module in (_rank_search, _budget):
        monkeypatch.setattr(module, "model_latencies", lambda models, _: [whole(model) for model in models])
    return whole


@pytest.mark.parametrize("allocation", ["by_time", "by_loss", "uniform"])
@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0, 3.0])
def test_the_model_is_as_fast_as_was_asked_and_not_much_faster(
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
    model, ranks = tiny_model("bert"), (2, 4, 6, 8)
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
        assert float(kl_divergences(*answers).mean()) <= allowed
        sizes.append(sum(parameter.numel() for parameter in compressed.parameters()))
    dense = sum(parameter.numel() for parameter in model.parameters())
    assert sizes[0] == dense
    assert sizes == sorted(sizes, reverse=True)
    # with everything allowed, every layer takes the smallest rank of its grid
    least = {name: one.rank for name, one in compressed.named_modules() if isinstance(one, LowRank)}
    assert set(least) == set(Architecture.of(model).linears)
    assert max(least.values()) <= 4


def test_what_a_layer_leaves_over_is_for_the_next_only_if_cumulative(counted: Callable[[nn.Module], float]):
    model, resources = tiny_model("bert"), Resources(calibration=tiny_batches(), validation=tiny_batches(seed=1))
    sizes = []
    for acceptance in ("cumulative", "fixed"):
        method = Drone(allocation="algorithm_2", allowed_kl=2e-2, acceptance=acceptance)
        compressed = method.apply(copy_sharing_parameters(model), resources)
        sizes.append(sum(parameter.numel() for parameter in compressed.parameters()))
    assert sizes[0] < sizes[1]


def test_what_methods_read_follows_from_their_parameters():
    assert Kfac(keep=0.5).reads == {"calibration"}
    assert Svd(keep=0.5).reads == frozenset()
    assert Svd(speedup=2.0).reads == {"calibration"}
    assert Svd(keep=0.5, calibration="sequential").reads == {"calibration"}
    assert Drone(allocation="algorithm_2", allowed_kl=0.1).reads == {"calibration", "validation"}


def test_representative_batches_are_full_and_spread_over_the_lengths():
    batches = tiny_batches(count=20, batch_size=3)
    found = representative_batches(batches, batch_size=12, count=3)
    lengths = [batch["input_ids"].shape[1] for batch in found]
    assert len(found) == 3
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    assert all(len(batch["input_ids"]) == 12 for batch in found)
    assert all(batch["input_ids"].shape == batch["attention_mask"].shape for batch in found)
    assert representative_batches(tiny_batches(count=1)) != []


def test_slow_calls_take_fewer_turns_but_never_fewer_than_3():
    def rounds(budget: float) -> int:
        return len(time_interleaved([lambda: time.sleep(0.002)] * 2, rounds=20, budget=budget))

    assert rounds(math.inf) == 20
    assert rounds(0.0) == 3
    assert 3 <= rounds(0.03) <= 9  # a round takes 4 ms or more


def test_times_are_taken_alone_on_the_machine():
    """While one program takes times, the lock that all others wait for is held."""
    seen = []

    def watched():
        with pytest.raises(Timeout):
            lock.acquire(timeout=0)
        seen.append(1)

    lock = FileLock(timing.TIMING)
    time_interleaved([watched], rounds=3)
    with lock.acquire(timeout=0):
        assert len(seen) == 5


def test_calls_take_turns_after_a_warm_up():
    seen: list[int] = []
    seconds = time_interleaved([lambda: seen.append(0), lambda: seen.append(1)], rounds=4)
    assert seconds.shape == (4, 2)
    assert (seconds > 0).all()
    assert seen == [0, 1] * (len(seen) // 2)
    assert len(seen) > 8


def test_a_larger_rank_is_never_taken_to_be_faster():
    found = layer_latencies(torch.empty(24, 16), [1, 2, 4, 8], representative_batches(tiny_batches()))
    assert found.dense > 0
    assert list(found.factored) == [1, 2, 4, 8]
    assert np.all(np.diff(list(found.factored.values())) >= 0)
