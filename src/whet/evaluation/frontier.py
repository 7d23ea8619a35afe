"""The trials that no other trial beats on every axis at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from whet.evaluation.display import Grid, models_grid
from whet.evaluation.trial import Trial

__all__ = ["Frontier"]


@dataclass(frozen=True)
class Frontier:
    """Trials worth choosing from, best first on the first axis."""

    axes: tuple[str, ...]
    """Names of the metrics that are traded against each other."""
    trials: tuple[Trial, ...]
    """Those that nothing dominates."""

    def __repr__(self) -> str:
        return f"Frontier of {' and '.join(self.axes)}:\n{self._grid().text()}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the trials with what is traded."""
        return self._grid().html(caption=f"Frontier of {' and '.join(self.axes)}")

    def _grid(self) -> Grid:
        return models_grid([(trial.name, trial.measurements) for trial in self.trials], self.axes)

    @classmethod
    def of(cls, trials: Sequence[Trial], axes: Sequence[str]) -> Self:
        """Return the frontier of `trials`: those for which no other is as good on every axis and better on one.

        Raises:
            UnknownName: a trial lacks one of the axes.
        """
        scores = [tuple(_goodness(trial, axis) for axis in axes) for trial in trials]
        kept = [i for i, own in enumerate(scores) if not any(_dominates(other, own) for other in scores)]
        kept.sort(key=lambda i: scores[i], reverse=True)
        return cls(tuple(axes), tuple(trials[i] for i in kept))


def _goodness(trial: Trial, axis: str) -> float:
    measurement = trial.get(axis)
    return measurement.value if measurement.better == "higher" else -measurement.value


def _dominates(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return other != own and all(a >= b for a, b in zip(other, own, strict=True))
