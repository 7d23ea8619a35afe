"""Methods whose costly part does not depend on the budget: it runs once, and every budget reuses it."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.evaluation.significance import speedup as speedup_of
from whet.evaluation.timing import time_models
from whet.methods._share import KeepsShare
from whet.numerics.allocation import LayerOptions, minimise_loss
from whet.tasks.data import Batch
from whet.utils.parameters import require_one
from whet.utils.ranges import Damping, Keep, Speedup, Temperature

__all__ = ["Budgeted", "Ranks", "at_budget", "at_speed"]


@dataclass(frozen=True, kw_only=True)
class Budgeted(KeepsShare):
    """A method that first learns the loss of every size of a model's parts, and then chooses sizes for a budget."""

    keep: Keep | None = None
    """Fraction of the weights of the matched parts of blocks to keep, e.g. 0.5."""
    speedup: Speedup | None = None
    """Wanted speedup in sentences per second on this machine, e.g. 1.5; instead of keep."""
    damping: Damping = 1e-3
    """Damping added to every feature's variance, as a fraction of their mean; more damping trusts the data less."""
    temperature: Temperature = 3.0
    """Temperature that softens the predictions before gradients are taken; see factorization.kfac."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: a parameter is outside its range, or not exactly one of keep and speedup is given.
        """
        super().__post_init__()
        require_one({"keep": self.keep, "speedup": self.speedup}, such_as="keep=0.5 or speedup=1.5")

    def compress(self, model: nn.Module, locations: Any, resources: Resources) -> nn.Module:
        """See `KeepsShare.compress`; one forward and one backward pass, and O(features³) operations per part."""
        return self.spend(model, self.learn(model, resources), resources)

    @property
    @abstractmethod
    def key(self) -> Self:
        """Return this method with a fixed budget: methods of equal keys share what `learn` returns."""

    @abstractmethod
    def learn(self, model: nn.Module, resources: Resources) -> Any:
        """Return what `spend` needs to know about a model, whatever the budget; the model stays as it is."""

    @abstractmethod
    def spend(self, model: nn.Module, known: Any, resources: Resources) -> nn.Module:
        """Return the compressed model; `model` must not be used again.

        Args:
            model: the model that `learn` was given, or a copy of it.
            known: what `learn` returned.
            resources: as in `apply`.
        """


Ranks = dict[str, int | None]
"""Each layer's rank; None leaves it dense."""
ATTEMPTS = 6
"""Number of corrections of a budget."""
CLOSE = 0.98
"""Fraction of the wanted speedup that is accepted: the rest is noise."""
FASTER = 1.05
"""Multiple of the wanted speedup that is accepted; a further attempt would build and time another model."""
SMALLEST = 0.01
"""Fraction of the parameters that the fastest model keeps."""


def at_budget(
    options: Mapping[str, LayerOptions],
    *,
    speedup: float,
    whole: float,
    fixed: float,
    timed: Callable[[Mapping[str, int]], float],
) -> dict[str, int]:
    """Return the choice of least summed loss that makes a model `speedup` times as fast.

    Args:
        options: the options of each part, with seconds as costs.
        speedup: wanted speedup of the whole model, more than 1.
        whole: seconds that the dense model takes.
        fixed: seconds of `whole` that no option can save.
        timed: returns the measured speedup over the dense model of a choice of options.

    Raises:
        InvalidParameter: no choice is as fast; the message gives the best possible speedup.
    """
    budget = whole / speedup - fixed
    fastest, best, least = 0.0, None, math.inf
    for _ in range(ATTEMPTS):
        chosen = minimise_loss(options, budget)
        reached = timed(chosen)
        fastest = max(fastest, reached)
        if CLOSE * speedup <= reached < least:
            best, least = chosen, reached
        if CLOSE * speedup <= reached <= FASTER * speedup or (best is None and not any(chosen.values())):
            break
        budget -= whole / reached - whole / speedup
    if best is not None:
        return best
    raise _too_fast(fastest, speedup)


def at_speed(
    model: nn.Module,
    choose: Callable[[float], Ranks],
    batches: Sequence[Batch],
    *,
    speedup: float,
    build: Callable[[Ranks], nn.Module],
) -> Ranks:
    """Return the ranks that make the model `speedup` times as fast.

    The time grows nearly linearly with the fraction of the parameters that is kept, so a few interpolations find it.

    Args:
        model: the dense model.
        choose: returns the ranks for a fraction of the parameters in (0, 1].
        batches: the batches to time with.
        speedup: wanted speedup of the whole model, more than 1.
        build: returns a model with the given ranks.

    Raises:
        InvalidParameter: no fraction is as fast; the message gives the best possible speedup.
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
        timed = keep, relative_time(keep)
        fast, slow = (timed, slow) if timed[1] <= allowed else (fast, timed)
    return choose(fast[0])


def _too_fast(best: float, speedup: float) -> InvalidParameter:
    return InvalidParameter(f"speedup <= {best:.2f} must hold on this machine, but got speedup={speedup}; give less")
