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

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from torch import nn

from whet.evaluation.timing import Latencies, layer_latencies, model_latencies
from whet.methods._budget import Ranks, at_budget
from whet.models.architecture import dense_weight
from whet.models.inference import predict_logits
from whet.numerics.allocation import Options
from whet.numerics.divergence import divergences
from whet.tasks.data import Batch, Batches
from whet.utils.progress import track

__all__ = ["algorithm_2", "by_time", "latencies_of"]


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
    wanted = predict_logits(original, held_out)
    total, allowed = sum(seconds.values()), 0.0
    chosen: Ranks = dict.fromkeys(ranks)
    for name in track(ranks, "accepting ranks"):
        share = allowed_kl * seconds[name] / total
        allowed = allowed + share if acceptance == "cumulative" else share
        put = factorize(name)
        for rank in ranks[name]:
            put(rank)
            if float(divergences(wanted, predict_logits(model, held_out)).mean()) <= allowed:
                chosen[name] = rank
                break
        else:
            put(None)
    return chosen
