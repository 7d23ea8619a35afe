"""Recipes that begin alike, without doing their common beginning twice.

What sizes of a model's parts would cost does not depend on which of them are taken: it is learnt once for each model
that stands before such a step, and kept for the few last ones.
"""

from collections import OrderedDict
from typing import Any

from torch import nn

from whet.calibration.resources import Resources
from whet.methods._budget import Budgeted
from whet.methods.base import Method
from whet.methods.recipe import Recipe

__all__ = ["CachedRecipes"]

KEPT = 3
"""Models of which is kept what was learnt; that of a wide one takes a few GiB."""


class CachedRecipes:
    """Applies recipes to one model; gives what `Recipe.apply` gives."""

    def __init__(self, original: nn.Module, resources: Resources) -> None:
        self._original = original
        self._resources = resources
        self._known: OrderedDict[tuple[Method, ...], Any] = OrderedDict()

    def apply(self, recipe: Recipe) -> nn.Module:
        """Return a compressed copy of the original.

        Raises:
            WhetError: a step cannot be applied.
        """
        return recipe.apply(self._original, self._resources, run=self._run)

    def _run(self, before: tuple[Method, ...], method: Method, model: nn.Module, own: Resources) -> nn.Module:
        if isinstance(method, Budgeted):
            return method.spend(model, self._learnt(before, method, model, own), own)
        return method.apply(model, own)

    def _learnt(self, before: tuple[Method, ...], method: Budgeted, model: nn.Module, own: Resources) -> Any:
        """What the step needs to know of the model that stands before it, whatever it keeps."""
        key = (*before, method.key)
        if key not in self._known:
            self._known[key] = method.learn(model, own)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]
