"""Recipes that begin alike, without doing their common beginning twice.

In which order neurons and heads go, and what that costs, does not depend on how many stay: it is computed once for each
model that stands before the step, and kept for the few last ones.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from whet.method import Method
from whet.recipe import Recipe
from whet.resources import Resources
from whet.structured import Part, StructuredPruning

__all__ = ["SharedSteps"]

KEPT = 3
"""Orders of removal that are kept; those of a wide model's neurons take a GiB."""


class SharedSteps:
    """Applies recipes to one model; gives what `Recipe.apply` gives."""

    def __init__(self, original: nn.Module, resources: Resources) -> None:
        self._original = original
        self._resources = resources
        self._parts: OrderedDict[tuple[Method, ...], Mapping[str, Part]] = OrderedDict()

    def apply(self, recipe: Recipe) -> nn.Module:
        """Return a compressed copy of the original.

        Raises:
            WhetError: a step cannot be applied.
        """
        return recipe.apply(self._original, self._resources, run=self._run)

    def _run(self, before: tuple[Method, ...], method: Method, model: nn.Module, own: Resources) -> nn.Module:
        if isinstance(method, StructuredPruning) and method.keep is not None:
            return method.fewer(model, self._parts_of(before, method, model, own), own)
        return method.apply(model, own)

    def _parts_of(
        self, before: tuple[Method, ...], method: StructuredPruning, model: nn.Module, own: Resources
    ) -> Mapping[str, Part]:
        """What the step needs to know of the model that stands before it, whatever it keeps."""
        key = (*before, dataclasses.replace(method, keep=1.0))
        if key not in self._parts:
            places = method.places(model, own)
            self._parts[key] = method.parts(model, places, method.moments(model, places, own))
            if len(self._parts) > KEPT:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]
