"""What a search looks for: the bar that a candidate must hold, and what makes one candidate better than another.

A candidate holds the bar if the lower end of the paired 95 % interval of its difference from the baseline is above
-max_drop: a larger loss is then unlikely. It is not enough that a larger loss was not shown (`evaluation/headline.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whet.evaluation.frontier import Frontier
from whet.evaluation.headline import MAX_DROP, POINTS, holds_bar, quality_difference
from whet.evaluation.trial import Trial
from whet.utils.parameters import check
from whet.utils.ranges import MaxDrop, MaxSize

__all__ = ["Goal"]

RULE_OF_THREE = 3
"""If none of n examples changed, up to 3 / n of all may (95 %)."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The bar, and what counts above it."""

    max_drop: MaxDrop = MAX_DROP
    """Points of the task's first metric, hundredths, that a candidate may lose against the baseline."""
    max_size: MaxSize | None = None
    """Largest size on disk of the files that the runtime reads, in MiB; no limit if None."""
    best: Literal["latency", "size", "both"] = "latency"
    """What counts: the speedup, the compression ratio, or the product of both."""

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

    def holds(self, candidate: Trial) -> bool:
        """Return whether a candidate holds the bar."""
        return holds_bar(candidate, max_drop=self.max_drop)

    def score(self, candidate: Trial, baseline: Trial) -> float:
        """Return how many times better than the baseline a candidate is in what counts."""
        ratio = candidate.get("throughput").versus
        speedup = 1.0 if ratio is None else ratio.value
        compression = baseline.get("disk").value / candidate.get("disk").value
        return {"latency": speedup, "size": compression, "both": speedup * compression}[self.best]

    def accepts(self, candidate: Trial, baseline: Trial) -> bool:
        """Return whether a candidate holds the bar, is small enough, and beats the baseline in what counts."""
        return self.holds(candidate) and not self._excess(candidate) and self.score(candidate, baseline) > 1

    def value(self, candidate: Trial, baseline: Trial) -> float:
        """Return one number to rank by: the score above the bar; below it, minus the points that are missing."""
        missing = self.bar - quality_difference(candidate).low
        return self.score(candidate, baseline) if missing < 0 else -missing * POINTS

    def winner(self, candidates: Sequence[Trial], baseline: Trial) -> Trial:
        """Return the best accepted candidate, or else the one nearest to that; without candidates the baseline."""

        def rank(candidate: Trial) -> tuple[float, ...]:
            missing = max(0.0, self.bar - quality_difference(candidate).low)
            accepted = self.accepts(candidate, baseline)
            return accepted, -missing, -self._excess(candidate), self.score(candidate, baseline)

        return max(candidates, key=rank, default=baseline)

    def frontier(self, trials: Sequence[Trial]) -> Frontier:
        """Return the trials that no other dominates in quality and in what counts."""
        axes = [trials[0].measurements[0].metric]
        axes += ["throughput"] * (self.best != "size")
        axes += ["disk"] * self.bytes_count
        return Frontier.of(trials, axes)

    def examples_needed(self, candidate: Trial) -> int | None:
        """Return how many examples would show that a candidate holds the bar, if its difference stays as it is.

        The width of the interval falls with the square root of the number of examples. None where more examples would
        not help: the candidate holds the bar already, or its difference itself is below it.
        """
        quality, versus = candidate.measurements[0], quality_difference(candidate)
        room = min(versus.value, 0.0) - self.bar
        if self.holds(candidate) or room <= 0:
            return None
        return math.ceil(quality.n * ((versus.value - versus.low) / room) ** 2)

    def least_examples(self) -> int:
        """Return the number of examples below which nothing shows that the bar holds, even if no answer changes."""
        return math.ceil(RULE_OF_THREE * POINTS / self.max_drop)

    def _excess(self, candidate: Trial) -> float:
        return max(0.0, candidate.get("disk").value - (self.max_size or math.inf))
