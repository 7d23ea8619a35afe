"""The result of a search: the best model, everything that was measured, and what a reader should know about it."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from whet.evaluation.formatting import number
from whet.evaluation.frontier import Frontier
from whet.evaluation.headline import POINTS, points_in_words, quality_difference
from whet.evaluation.trial import Trial
from whet.searching.goal import Goal
from whet.searching.storage import SearchTrial

__all__ = ["BEST", "SearchResult", "result_of"]

T = TypeVar("T")

BEST = "best"
"""The folder of the best model, inside the folder of the search."""


class SearchResult(NamedTuple):
    """What a search found."""

    best: Trial
    """The best candidate that is accepted, or the one nearest to that; its model is in the folder `best`."""
    accepted: bool
    """Whether the best holds the bar, is small enough, and beats the baseline."""
    baseline: Trial
    """The baseline's own measurements."""
    candidates: list[Trial]
    """All candidates that were measured, on the selection slice."""
    frontier: Frontier
    """The frontier of the baseline and the candidates."""
    search_trials: list[SearchTrial]
    """The outcomes of all structures, also of those that were given up or failed."""
    confirmation: list[Trial]
    """The baseline and the best on the dev split; empty if the search was stopped first, or other workers go on."""
    notes: list[str]
    """Sentences on what a reader should know."""
    stopped: bool = False
    """Whether somebody pressed Ctrl-C."""

    @property
    def original(self) -> Trial:
        """The name of `baseline` in version 0.1.0."""
        return _renamed(self.baseline, "original", "baseline")

    @property
    def trials(self) -> list[Trial]:
        """The name of `candidates` in version 0.1.0."""
        return _renamed(self.candidates, "trials", "candidates")

    @property
    def attempts(self) -> list[SearchTrial]:
        """The name of `search_trials` in version 0.1.0."""
        return _renamed(self.search_trials, "attempts", "search_trials")


def _renamed(value: T, old: str, new: str) -> T:
    warnings.warn(f"SearchResult.{old} is called {new} now; use the new name", FutureWarning, stacklevel=3)
    return value


def result_of(
    search_trials: list[SearchTrial],
    baseline: Trial,
    goal: Goal,
    *,
    confirmation: list[Trial],
    notes: Sequence[str],
    stopped: bool = False,
) -> SearchResult:
    """Return the result of a search from what was recorded.

    Args:
        search_trials: the outcomes of all structures.
        baseline: the baseline's own measurements.
        goal: what was searched for.
        confirmation: the baseline and the best on the dev split, or nothing.
        notes: what is known about the end of the search.
        stopped: whether somebody pressed Ctrl-C.
    """
    candidates = [candidate for trial in search_trials for candidate in trial.candidates]
    best = goal.winner(candidates, baseline)
    frontier = goal.frontier([baseline, *candidates])
    accepted = bool(candidates) and goal.accepts(best, baseline)
    notes = [*notes, *(_on_dev(confirmation[1], goal) if confirmation else ())]
    if not candidates:
        what = "every candidate failed or was given up" if search_trials else "no structure was measured yet"
        notes.append(f"{what}, and {BEST} is the baseline")
    return SearchResult(best, accepted, baseline, candidates, frontier, search_trials, confirmation, notes, stopped)


def _on_dev(best: Trial, goal: Goal) -> list[str]:
    """What the dev split says of the best against the bar; nothing if the best is shown to hold it there."""
    found, quality = quality_difference(best), best.measurements[0]
    if found.value <= goal.bar:
        return [
            f"on dev the best loses {points_in_words(-found.value * POINTS, quality)}, and the bar is "
            f"{goal.max_drop:g}: it does better on the examples that it was chosen by; search with a narrower bar, or "
            "take another of the frontier"
        ]
    if found.low <= goal.bar:
        return [
            f"the {number(quality.n)} dev examples do not show that the best holds the bar of {goal.max_drop:g}: it "
            f"may lose {points_in_words(-found.low * POINTS, quality)} there; more of them would tell"
        ]
    return []
