"""Methods whose costly part does not depend on how much is left: it is done once, and any budget spent on it after."""

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.evaluation.significance import speedup as speedup_of
from whet.evaluation.timing import time_models
from whet.methods.base import Method, Stage
from whet.numerics.allocation import LayerOptions, minimise_loss
from whet.tasks.data import Batch
from whet.utils.parameters import require_one

__all__ = ["Budgeted", "Ranks", "at_budget", "at_speed"]


@dataclass(frozen=True, kw_only=True)
class Budgeted(Method):
    """A method that learns of a model what each size of its parts would cost, and then chooses sizes for a budget."""

    keep: Annotated[float | None, Interval(gt=0, le=1)] = None
    """Share that is kept of the linear parameters which can go, such as 0.5."""
    speedup: Annotated[float | None, Interval(gt=1)] = None
    """Instead, how many times as many sentences a second the model shall take here, such as 1.5."""
    damping: Annotated[float, Interval(gt=0)] = 1e-3
    """Added to every feature's variance, as a share of their mean; more trusts the calibration data less."""
    temperature: Annotated[float, Interval(gt=0, lt=math.inf)] = 3.0
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


def at_budget(
    options: Mapping[str, LayerOptions],
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
        chosen = minimise_loss(options, budget)
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
        dense, compressed = time_models([model, build(choose(keep))], batches).T
        return 1 / speedup_of(dense, compressed)

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
