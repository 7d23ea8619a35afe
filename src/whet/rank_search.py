"""Ranks that are found by measuring: the fastest within a loss, and the least loss within a time.

`by_time` fills a table of latencies for every shape of layer and minimises the summed loss under what is left of the
wanted time after everything that is not a layer; the model that comes out is timed, and the budget moved until it is as
fast as was asked. `at_speed` finds the share of parameters that gives a speed, for allocations that count parameters.
`algorithm_2` spreads an allowed KL over the layers by the time that each takes, goes through them in
forward order, and takes the smallest rank that stays within.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, Algorithm
2. Differs: a step is accepted by KL to the original on held-out training examples, never by cross-entropy on the dev
split, which can fall while the model gets worse.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from torch import nn

from whet.allocation import Options, minimise
from whet.architecture import dense_weight
from whet.divergence import divergences
from whet.errors import InvalidParameter
from whet.passes import answers
from whet.progress import track
from whet.resources import Batch, Batches
from whet.stopwatch import Latencies, layer_latencies, model_latencies

__all__ = ["Ranks", "algorithm_2", "at_budget", "at_speed", "by_time", "latencies_of"]

Ranks = dict[str, int | None]
"""Each layer's rank; None leaves it dense."""
ATTEMPTS = 6
"""Times that a budget is moved."""
CLOSE = 0.98
"""A model is as fast as was asked from this share of the speedup on: the rest is noise."""
FASTER = 1.05
"""Times the wanted speedup up to which a model need not be slowed down: each attempt makes one, and times it."""

SMALLEST = 0.01
"""Share of the parameters at which the fastest model is tried."""


def latencies_of(
    model: nn.Module, ranks: Mapping[str, Sequence[int]], batches: Sequence[Batch]
) -> dict[str, Latencies]:
    """Return the latencies of the named layers; layers of one shape are timed once."""
    known: dict[tuple[int, ...], Latencies] = {}
    found = {}
    for name in track(ranks, "timing layers"):
        layer = model.get_submodule(name)
        weight = dense_weight(layer)
        key = (*weight.shape, *ranks[name])
        if key not in known:
            known[key] = layer_latencies(weight, ranks[name], batches, bias=layer.bias is not None)
        found[name] = known[key]
    return found


def by_time(
    model: nn.Module,
    losses: Mapping[str, Mapping[int, float]],
    batches: Sequence[Batch],
    *,
    speedup: float,
    build: Callable[[Ranks], nn.Module],
) -> Ranks:
    """Return the ranks of least summed loss with which the model is `speedup` times as fast.

    Args:
        model: the dense model.
        losses: each layer's loss at each rank that it may take, ranks rising.
        batches: what to time with.
        speedup: more than 1; of the whole model.
        build: returns a model with these ranks, which is timed.

    Raises:
        InvalidParameter: no ranks are as fast; the message gives the best that can be reached.
    """
    tables = latencies_of(model, {name: list(own) for name, own in losses.items()}, batches)
    offers = {name: _faster(tables[name], losses[name]) for name in losses}
    whole = model_latencies([model], batches)[0]

    def ranks(chosen: Mapping[str, int]) -> Ranks:
        return {name: offers[name][0][i] for name, i in chosen.items()}

    def timed(chosen: Mapping[str, int]) -> float:
        dense, compressed = model_latencies([model, build(ranks(chosen))], batches)
        return dense / compressed

    options = {name: offer[1] for name, offer in offers.items()}
    fixed = whole - sum(table.dense for table in tables.values())
    return ranks(at_budget(options, speedup=speedup, whole=whole, fixed=fixed, timed=timed))


def at_budget(
    options: Mapping[str, Options],
    *,
    speedup: float,
    whole: float,
    fixed: float,
    timed: Callable[[Mapping[str, int]], float],
) -> dict[str, int]:
    """Return the options of least summed loss with which a model is `speedup` times as fast.

    Args:
        options: of each part, with seconds as costs.
        speedup: more than 1; of the whole model.
        whole: seconds that the dense model takes.
        fixed: of these, what the costs leave out.
        timed: returns how many times as fast as the dense model that of these options is, measured in turn.

    Raises:
        InvalidParameter: no options are as fast; the message gives the best that can be reached.
    """
    budget = whole / speedup - fixed
    fastest, found, least = 0.0, None, math.inf
    for _ in range(ATTEMPTS):
        chosen = minimise(options, budget)
        reached = timed(chosen)
        fastest = max(fastest, reached)
        if CLOSE * speedup <= reached < least:
            found, least = chosen, reached
        if CLOSE * speedup <= reached <= FASTER * speedup or (found is None and not any(chosen.values())):
            break
        budget -= whole / reached - whole / speedup
    if found is not None:
        return found
    raise _too_fast(fastest, speedup)


def at_speed(
    model: nn.Module,
    choose: Callable[[float], Ranks],
    batches: Sequence[Batch],
    *,
    speedup: float,
    build: Callable[[Ranks], nn.Module],
) -> Ranks:
    """Return the ranks of a share of the parameters with which the model is `speedup` times as fast.

    The time grows nearly linearly with the share, so that a few interpolations find it.

    Args:
        model: the dense model.
        choose: gives the ranks at a share of the parameters, more than 0 and at most 1.
        batches: what to time with.
        speedup: more than 1; of the whole model.
        build: returns a model with these ranks, which is timed.

    Raises:
        InvalidParameter: no share is as fast; the message gives the best that can be reached.
    """

    def relative_time(keep: float) -> float:
        dense, compressed = model_latencies([model, build(choose(keep))], batches)
        return compressed / dense

    wanted, allowed = 1 / speedup, 1 / (CLOSE * speedup)
    fast, slow = (SMALLEST, relative_time(SMALLEST)), (1.0, 1.0)
    if fast[1] > allowed:
        raise _too_fast(1 / fast[1], speedup)
    for _ in range(ATTEMPTS):
        if CLOSE * wanted <= fast[1]:
            break
        keep = fast[0] + (slow[0] - fast[0]) * (wanted - fast[1]) / (slow[1] - fast[1])
        found = keep, relative_time(keep)
        fast, slow = (found, slow) if found[1] <= allowed else (fast, found)
    return choose(fast[0])


def _too_fast(best: float, speedup: float) -> InvalidParameter:
    return InvalidParameter(f"speedup <= {best:.2f} must hold on this machine, but got speedup={speedup}; give less")


def _faster(table: Latencies, losses: Mapping[int, float]) -> tuple[list[int | None], Options]:
    """The ranks that are faster than the dense layer, and the dense layer itself."""
    ranks = [rank for rank in losses if table.factored[rank] < table.dense]
    costs = [*(table.factored[rank] for rank in ranks), table.dense]
    return [*ranks, None], Options(np.asarray(costs), np.asarray([*(losses[rank] for rank in ranks), 0.0]))


def algorithm_2(
    model: nn.Module,
    original: nn.Module,
    ranks: Mapping[str, Sequence[int]],
    held_out: Batches,
    *,
    seconds: Mapping[str, float],
    allowed_kl: float,
    acceptance: Literal["cumulative", "fixed"],
    factorize: Callable[[str], Callable[[int | None], None]],
) -> Ranks:
    """Factorise `model` in place, layer after layer, and return the ranks.

    Args:
        model: a copy of `original`.
        original: what its answers are compared with.
        ranks: the grid of each layer in forward order, rising.
        held_out: training examples that decide.
        seconds: how long each layer takes.
        allowed_kl: mean KL(original ‖ compressed) allowed in the end.
        acceptance: whether a layer may use what those before it left over, or must hold the sum to its own share.
        factorize: for a layer, by statistics of the model as it is by then, returns what puts a rank in, or None for
            the dense layer.
    """
    wanted = answers(original, held_out)
    total, allowed = sum(seconds.values()), 0.0
    chosen: Ranks = dict.fromkeys(ranks)
    for name in track(ranks, "accepting ranks"):
        share = allowed_kl * seconds[name] / total
        allowed = allowed + share if acceptance == "cumulative" else share
        put = factorize(name)
        for rank in ranks[name]:
            put(rank)
            if float(divergences(wanted, answers(model, held_out)).mean()) <= allowed:
                chosen[name] = rank
                break
        else:
            put(None)
    return chosen
