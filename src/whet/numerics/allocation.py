"""How much each layer keeps under one budget.

Each layer offers options, each with a cost and a loss. `allocate_uniformly` gives every layer the same share of its own
cost. `minimise_loss` spends one budget where it lowers the summed loss most: it walks the lower convex hull of each
layer's (cost, loss) points, steepest step first, which is optimal for every budget that a hull step meets exactly, and
spends the remainder on the best single improvements that still fit.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LayerOptions", "allocate", "allocate_uniformly", "minimise_loss"]


class LayerOptions(NamedTuple):
    """The cost and the loss of every option of one layer, from cheapest to most expensive."""

    costs: np.ndarray[Any, Any]
    """(options,) ascending, in parameters or seconds."""
    losses: np.ndarray[Any, Any]
    """(options,) in a unit that all layers share."""


def allocate(layers: Mapping[str, LayerOptions], keep: float, *, spread: bool) -> dict[str, int]:
    """Return the index of each layer's chosen option; together they cost at most `keep` of the uncompressed layers.

    Args:
        layers: the options of each layer; the most expensive one is the uncompressed layer.
        keep: fraction of the uncompressed layers' summed cost to keep; 0 < keep <= 1.
        spread: True spends one budget where it lowers the loss most; False keeps the same fraction of every layer.
    """
    budgets = {name: keep * float(options.costs[-1]) for name, options in layers.items()}
    return minimise_loss(layers, sum(budgets.values())) if spread else allocate_uniformly(layers, budgets)


def allocate_uniformly(layers: Mapping[str, LayerOptions], budgets: Mapping[str, float]) -> dict[str, int]:
    """Return the index of each layer's most expensive option within its own budget, or of the cheapest if none fits."""
    return {
        name: max(0, int(np.searchsorted(options.costs, budgets[name], side="right")) - 1)
        for name, options in layers.items()
    }


def minimise_loss(layers: Mapping[str, LayerOptions], budget: float) -> dict[str, int]:
    """Return the index of each layer's option such that the summed loss is least within the budget.

    Every layer starts at its cheapest option, even if these alone exceed the budget.
    """
    hulls = {name: _lower_hull(options) for name, options in layers.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    remaining = budget - sum(float(layers[name].costs[i]) for name, i in chosen.items())
    steps = [
        (_slope(layers[name], before, after), name, before, after)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    stopped: set[str] = set()
    for _, name, before, after in sorted(steps):
        price = float(layers[name].costs[after] - layers[name].costs[before])
        if name in stopped or price > remaining:
            stopped.add(name)
            continue
        chosen[name] = after
        remaining -= price
    return _spend_remainder(layers, chosen, remaining)


def _spend_remainder(layers: Mapping[str, LayerOptions], chosen: dict[str, int], remaining: float) -> dict[str, int]:
    """Spend the rest of the budget on the largest improvement that fits, again and again."""
    while True:
        best: tuple[float, str, int] | None = None
        for name, current in chosen.items():
            costs, losses = layers[name]
            affordable = np.flatnonzero((costs - costs[current] <= remaining) & (losses < losses[current]))
            if len(affordable):
                option = int(affordable[np.argmin(losses[affordable])])
                gain = float(losses[current] - losses[option])
                if best is None or gain > best[0]:
                    best = (gain, name, option)
        if best is None:
            return chosen
        _, name, option = best
        remaining -= float(layers[name].costs[option] - layers[name].costs[chosen[name]])
        chosen[name] = option


def _slope(options: LayerOptions, before: int, after: int) -> float:
    cost = options.costs[after] - options.costs[before]
    return float((options.losses[after] - options.losses[before]) / cost)


def _lower_hull(options: LayerOptions) -> Sequence[int]:
    """Return the indices of the options on the lower convex hull of loss over cost, as far as the loss falls."""
    hull: list[int] = []
    for i in range(len(options.costs)):
        if hull and options.losses[i] >= options.losses[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(options, hull[-2], hull[-1]) >= _slope(options, hull[-1], i):
            hull.pop()
        hull.append(i)
    return hull
