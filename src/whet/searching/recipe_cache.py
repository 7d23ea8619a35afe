"""A cache of what methods with a budget learn from a model, so that many recipes share it.

What it would cost to make a model's parts smaller does not depend on the budget. It is learnt once for each model that
such a step is applied to, and kept for the models that were used last.
"""

from collections import OrderedDict
from typing import Any

from torch import nn

from whet.calibration.resources import Resources
from whet.methods._budget import Budgeted
from whet.methods.base import Method
from whet.methods.recipe import Recipe

__all__ = ["CachedRecipes"]

SIZE = 3
"""Entries of the cache; one for a wide model takes a few GiB."""


class CachedRecipes:
    """Applies recipes to one model, with the same result as `Recipe.apply`."""

    def __init__(self, baseline: nn.Module, resources: Resources) -> None:
        self._baseline = baseline
        self._resources = resources
        self._learnt: OrderedDict[tuple[Method, ...], Any] = OrderedDict()

    def apply(self, recipe: Recipe) -> nn.Module:
        """Return a compressed copy of the model.

        Raises:
            WhetError: a step cannot be applied.
        """
        return recipe.apply(self._baseline, self._resources, run=self._run)

    def _run(self, before: tuple[Method, ...], method: Method, model: nn.Module, resources: Resources) -> nn.Module:
        if isinstance(method, Budgeted):
            return method.spend(model, self._learn(before, method, model, resources), resources)
        return method.apply(model, resources)

    def _learn(self, before: tuple[Method, ...], method: Budgeted, model: nn.Module, resources: Resources) -> Any:
        """What a step has to know of the model that it is applied to, for any budget."""
        key = (*before, method.key)
        if key not in self._learnt:
            self._learnt[key] = method.learn(model, resources)
            if len(self._learnt) > SIZE:
                self._learnt.popitem(last=False)
        self._learnt.move_to_end(key)
        return self._learnt[key]
