"""What a search looks for: the bar that a candidate must hold, and what makes one better than another.

A candidate holds the bar if the lower end of the paired 95 % interval of its difference from the original is above
-max_drop: that it may be worse by more is then unlikely, and not only not shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from whet.evaluation.frontier import Frontier
from whet.evaluation.measurement import Comparison
from whet.evaluation.trial import Trial
from whet.utils.parameters import check

__all__ = ["POINTS", "Goal", "difference"]

POINTS = 100
"""Points in one: differences of metrics are told in hundredths."""
RULE_OF_THREE = 3
"""If none of n examples changed, up to 3 / n of all may (95 %)."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The bar, and what counts above it."""

    max_drop: Annotated[float, Interval(gt=0, le=POINTS)] = 1.0
    """Points of the task's first metric, hundredths, that may be lost against the original."""
    max_size: Annotated[float | None, Interval(gt=0)] = None
    """MiB on disk at most, of what the runtime reads."""
    best: Literal["latency", "size", "both"] = "latency"
    """Whether time counts, or size, or the product of both."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)

    @property
    def bar(self) -> float:
        """The lower end of the difference must be above this."""
        return -self.max_drop / POINTS

    @property
    def bytes_count(self) -> bool:
        """Whether a smaller file is worth anything."""
        return self.best != "latency" or self.max_size is not None

    def holds(self, trial: Trial) -> bool:
        """Return whether a candidate holds the bar."""
        return difference(trial).low > self.bar

    def score(self, trial: Trial, original: Trial) -> float:
        """Return how many times better than the original a candidate is in what counts."""
        ratio = trial.get("throughput").versus
        faster = 1.0 if ratio is None else ratio.value
        smaller = original.get("disk").value / trial.get("disk").value
        return {"latency": faster, "size": smaller, "both": faster * smaller}[self.best]

    def accepts(self, trial: Trial, original: Trial) -> bool:
        """Return whether a candidate holds the bar, is small enough, and better than the original in what counts."""
        return self.holds(trial) and not self._excess(trial) and self.score(trial, original) > 1

    def value(self, trial: Trial, original: Trial) -> float:
        """Return one number to rank by: the score above the bar, and below it the points that are missing."""
        missing = self.bar - difference(trial).low
        return self.score(trial, original) if missing < 0 else -missing * POINTS

    def winner(self, trials: Sequence[Trial], original: Trial) -> Trial:
        """Return the best that is accepted, or else the one nearest to it; the original if there is no other."""

        def rank(trial: Trial) -> tuple[float, ...]:
            missing = max(0.0, self.bar - difference(trial).low)
            return self.accepts(trial, original), -missing, -self._excess(trial), self.score(trial, original)

        return max(trials, key=rank, default=original)

    def frontier(self, trials: Sequence[Trial]) -> Frontier:
        """Return what nothing dominates in quality and what counts."""
        axes = [trials[0].measurements[0].metric]
        axes += ["throughput"] * (self.best != "size")
        axes += ["disk"] * self.bytes_count
        return Frontier.of(trials, axes)

    def examples_needed(self, trial: Trial) -> int | None:
        """Return how many examples would show that this candidate holds the bar, if its difference is what it seems.

        The interval shrinks with the root of their number. None where more would not help: the candidate holds the bar,
        or loses more than that.
        """
        one, versus = trial.measurements[0], difference(trial)
        room = min(versus.value, 0.0) - self.bar
        if self.holds(trial) or room <= 0:
            return None
        return math.ceil(one.n * ((versus.value - versus.low) / room) ** 2)

    def least_examples(self) -> int:
        """Return below how many examples no answer that stays the same can show that the bar holds."""
        return math.ceil(RULE_OF_THREE * POINTS / self.max_drop)

    def _excess(self, trial: Trial) -> float:
        return max(0.0, trial.get("disk").value - (self.max_size or math.inf))


def difference(trial: Trial) -> Comparison:
    """Return a candidate's difference from the original in the task's first metric."""
    versus = trial.measurements[0].versus
    assert versus is not None, "only candidates are compared"
    return versus
