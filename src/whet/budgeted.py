"""Methods whose costly part does not depend on how much is left: it is done once, and any budget spent on it after."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from whet.method import Method
from whet.resources import Resources

__all__ = ["Budgeted"]


@dataclass(frozen=True, kw_only=True)
class Budgeted(Method):
    """A method that learns of a model what each size of its parts would cost, and then chooses sizes for a budget."""

    @property
    @abstractmethod
    def key(self) -> Self:
        """Return the same method with a budget that stands for all for which `learn` gives the same."""

    @abstractmethod
    def learn(self, model: nn.Module, resources: Resources) -> Any:
        """Return what is to be known of a model, whatever is left of it; the model stays as it is."""

    @abstractmethod
    def spend(self, model: nn.Module, known: Any, resources: Resources) -> nn.Module:
        """Return the compressed model; `model` must not be used again.

        Args:
            model: what `known` was learnt of, or a copy of it.
            known: from `learn`.
            resources: as in `apply`.
        """
