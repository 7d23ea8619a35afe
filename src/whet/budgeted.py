"""Methods whose costly part does not depend on how much is left: it is done once, and any budget spent on it after."""

import math
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from torch import nn

from whet.method import Method, Stage
from whet.parameter import Range, require_one
from whet.resources import Resources

__all__ = ["Budgeted"]


@dataclass(frozen=True, kw_only=True)
class Budgeted(Method):
    """A method that learns of a model what each size of its parts would cost, and then chooses sizes for a budget."""

    keep: Annotated[float | None, Range(above=0, most=1)] = None
    """Share that is kept of the linear parameters which can go, such as 0.5."""
    speedup: Annotated[float | None, Range(above=1)] = None
    """Instead, how many times as many sentences a second the model shall take here, such as 1.5."""
    damping: Annotated[float, Range(above=0)] = 1e-3
    """Added to every feature's variance, as a share of their mean; more trusts the calibration data less."""
    temperature: Annotated[float, Range(above=0, below=math.inf)] = 3.0
    """Softens the predictions that gradients start from; see kfac."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range, or if not one thing says how much stays."""
        super().__post_init__()
        require_one({"keep": self.keep, "speedup": self.speedup}, such_as="keep=0.5 or speedup=1.5")

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; one forward and one backward pass, and O(features³) a part."""
        if self.keep == 1:
            self.places(model, resources)  # (which refuses a model without any)
            return model
        return self.spend(model, self.learn(model, resources), resources)

    @property
    @abstractmethod
    def key(self) -> Self:
        """Return the same method with a budget that stands for all for which `learn` gives the same."""

    @abstractmethod
    def places(self, model: nn.Module, resources: Resources) -> Collection[Any]:
        """Return where something can go; raises NothingToCompress if nowhere."""

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
