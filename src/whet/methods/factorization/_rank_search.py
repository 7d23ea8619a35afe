"""Searches that choose ranks by measurement: the least loss within a time, or the smallest ranks within a loss.

`ranks_within_time` measures a table of latencies for every layer shape. It minimises the summed loss under the wanted
time less the time that everything else in the model takes, times the resulting model, and moves the budget until the
model is as fast as wanted.

`ranks_within_kl` spreads an allowed KL over the layers in proportion to their time. It visits them in forward order and
takes the smallest rank whose KL is allowed.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, Algorithm
2. Differs: a step is accepted by its KL from the baseline on held-out training examples, never by cross-entropy on the
dev split, which can fall while the model gets worse.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from torch import nn

from whet.evaluation.significance import speedup as speedup_of
from whet.evaluation.timing import Latencies, layer_latencies, time_models
from whet.methods._budget import Ranks, at_budget
from whet.models.architecture import dense_weight
from whet.models.inference import predict
from whet.numerics.allocation import LayerOptions
from whet.tasks.data import Batch, Batches
from whet.utils.progress import track

__all__ = ["layer_latency_tables", "ranks_within_kl", "ranks_within_time"]


def layer_latency_tables(
    model: nn.Module, ranks: Mapping[str, Sequence[int]], batches: Sequence[Batch]
) -> dict[str, Latencies]:
    """Return the latencies of the named layers, by name; layers of one shape are timed once.

    Args:
        model: holds the layers, which are dense.
        ranks: the names of the layers, with the ranks at which factors are timed beside the dense layer.
        batches: the calibration batches to time with.
    """
    by_shape: dict[tuple[int, ...], Latencies] = {}
    latencies = {}
    for name in track(ranks, "timing layers"):
        layer = model.get_submodule(name)
        weight = dense_weight(layer)
        key = (*weight.shape, *ranks[name])
        if key not in by_shape:
            by_shape[key] = layer_latencies(weight, ranks[name], batches, bias=layer.bias is not None)
        latencies[name] = by_shape[key]
    return latencies


def ranks_within_time(
    model: nn.Module,
    losses: Mapping[str, Mapping[int, float]],
    batches: Sequence[Batch],
    *,
    speedup: float,
    build: Callable[[Ranks], nn.Module],
) -> Ranks:
    """Return the ranks of least summed loss at which the whole model is `speedup` times as fast.

    Args:
        model: the dense model.
        losses: each layer's loss at each rank that it may take, in rising order of rank.
        batches: the calibration batches to time with.
        speedup: wanted speedup of the whole model, above 1.
        build: returns the model with the given ranks, so that it can be timed.

    Raises:
        InvalidParameter: no ranks reach the speedup; the message gives the best speedup that can be reached.
    """
    tables = layer_latency_tables(model, {name: list(by_rank) for name, by_rank in losses.items()}, batches)
    offers = {name: _faster(tables[name], losses[name]) for name in losses}
    whole = float(np.median(time_models([model], batches)))

    def ranks(chosen: Mapping[str, int]) -> Ranks:
        return {name: offers[name][0][i] for name, i in chosen.items()}

    def timed(chosen: Mapping[str, int]) -> float:
        dense, compressed = time_models([model, build(ranks(chosen))], batches).T
        return speedup_of(dense, compressed)

    options = {name: offer[1] for name, offer in offers.items()}
    fixed = whole - sum(table.dense for table in tables.values())
    return ranks(at_budget(options, speedup=speedup, whole=whole, fixed=fixed, timed=timed))


def _faster(table: Latencies, losses: Mapping[int, float]) -> tuple[list[int | None], LayerOptions]:
    """Return the ranks that are faster than the dense layer, then None for the dense layer, with their options."""
    ranks = [rank for rank in losses if table.factored[rank] < table.dense]
    costs = [*(table.factored[rank] for rank in ranks), table.dense]
    return [*ranks, None], LayerOptions(np.asarray(costs), np.asarray([*(losses[rank] for rank in ranks), 0.0]))


def ranks_within_kl(
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
    """Factorise `model` in place, layer after layer, and return the chosen ranks.

    Args:
        model: a copy of `original`.
        original: the baseline, whose predictions are the reference.
        ranks: the ranks to try in each layer, rising; layers are in forward order.
        held_out: held-out training examples on which the KL is measured.
        seconds: the time that each dense layer takes.
        allowed_kl: largest mean KL(original ‖ compressed) of the finished model, in nats.
        acceptance: "cumulative" if a layer may spend the KL that earlier layers left over; "fixed" if the total KL must
            stay within the layer's own share.
        factorize: takes a layer's name and decomposes it with statistics of the model as compressed so far; returns a
            function that gives the layer a rank, or with None makes it dense again.
    """
    reference = predict(original, held_out)
    total, allowed = sum(seconds.values()), 0.0
    chosen: Ranks = dict.fromkeys(ranks)
    for name in track(ranks, "accepting ranks"):
        share = allowed_kl * seconds[name] / total
        allowed = allowed + share if acceptance == "cumulative" else share
        set_rank = factorize(name)
        for rank in ranks[name]:
            set_rank(rank)
            if float(reference.divergences(predict(model, held_out)).mean()) <= allowed:
                chosen[name] = rank
                break
        else:
            set_rank(None)
    return chosen
