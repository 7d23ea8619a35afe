"""What was won, in one sentence, and which model is the best: the fastest that is shown to lose less than a bar.

Non-inferiority: a model holds the bar if the lower end of the paired 95 % interval of its difference from the baseline
is above -max_drop. It is not enough that a larger loss was not shown, since few examples show nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from whet.evaluation.formatting import number, points
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words

__all__ = [
    "MAX_DROP",
    "POINTS",
    "SPEEDS",
    "Verdict",
    "fastest_that_holds",
    "headline",
    "holds_bar",
    "judged",
    "least_speedup",
    "points_in_words",
    "quality_difference",
    "verdict",
]

POINTS = 100
"""Points in one: differences of metrics are given in hundredths."""
MAX_DROP = 1.0
"""Points that a model may lose against the baseline, unless somebody says otherwise."""
SPEEDS = ("latency_median", "throughput")
"""Speed for single texts, which a user waits for, and in batches."""
_ALIKE = 1.1
"""Speedups whose ratio is below this are told as one."""
_EVEN = 0.05
"""A speedup nearer to 1 is none."""


class Verdict(NamedTuple):
    """What the best of some trials wins."""

    trial: Trial
    """The trial that the sentences are about."""
    won: bool
    """Whether it is faster than the baseline and holds the bar."""
    sentence: str
    """What it wins, or that nothing is won; without a full stop."""
    detail: str = ""
    """What it may lose, where that is more than the bar."""

    def __str__(self) -> str:
        """Return all of it as text."""
        name = f"{self.trial.name}: " if self.won else ""
        return name + " ".join(f"{part}." for part in (self.sentence, self.detail) if part)


def quality_difference(candidate: Trial) -> Comparison:
    """Return a candidate's gain over the baseline in the task's first metric, negative if it lost; see `gain`."""
    versus = candidate.measurements[0].versus
    assert versus is not None, "only candidates are compared with the baseline"
    return versus.gain


def holds_bar(trial: Trial, *, max_drop: float = MAX_DROP) -> bool:
    """Return whether a trial is shown to lose less than a bar; the baseline, which is compared with nothing, is.

    Args:
        trial: the trial; its first measurement is its quality.
        max_drop: points that it may lose.
    """
    versus = trial.measurements[0].versus
    return versus is None or versus.gain.low > -max_drop / POINTS


def least_speedup(trial: Trial) -> float | None:
    """Return how many times as fast as the baseline a trial is at least: for single texts or in batches.

    None if neither was timed. A model that gains in batches and loses for single texts is no faster model.
    """
    ratios = [1.0 if one.versus is None else one.versus.value for one in trial.measurements if one.metric in SPEEDS]
    return min(ratios, default=None)


def fastest_that_holds(trials: Sequence[Trial], *, max_drop: float = MAX_DROP) -> Trial:
    """Return the fastest trial that holds the bar, by its `least_speedup`; the baseline where none is faster.

    Args:
        trials: the trials, the baseline first.
        max_drop: points that a trial may lose; see `holds_bar`.
    """
    candidates = [trial for trial in trials[1:] if holds_bar(trial, max_drop=max_drop)]
    fastest = max(candidates, key=_speed, default=trials[0])
    return fastest if _speed(fastest) > 1 else trials[0]


def headline(baseline: Trial | None, trial: Trial) -> str:
    """Return in words how a trial differs from the baseline: speed, quality, size, as far as they were measured.

    Such as "4.1 times as fast, accuracy 0.3 points lower (-1.1 to +0.5), 14 MiB instead of 87".

    Args:
        baseline: the trial that the other was compared with, in the same run; None if it was not kept.
        trial: the other.
    """
    return ", ".join(part for part in (_speed_in_words(trial), _quality(trial), _size(baseline, trial)) if part)


def judged(trials: Sequence[Trial], *, max_drop: float = MAX_DROP) -> Verdict | None:
    """Return what the best of some trials wins, or why none wins anything; None if none was timed.

    Where none that is faster holds the bar, the verdict is about the one that comes nearest to it, and states how much
    it may lose.

    Args:
        trials: the trials, the baseline first.
        max_drop: points that a trial may lose; see `holds_bar`.
    """
    baseline, best = trials[0], fastest_that_holds(trials, max_drop=max_drop)
    if all(least_speedup(trial) is None for trial in trials):
        return None
    if best is not baseline:
        return Verdict(best, True, headline(baseline, best))
    faster = [trial for trial in trials[1:] if _speed(trial) > 1]  # and none of them holds the bar
    if not faster:
        gains = any(versus.value > 1 for trial in trials for _, versus in _speedups(trial))
        both = " both for single texts and in batches" if gains else ""
        return Verdict(baseline, False, f"No model is faster than {baseline.name}{both}")
    nearest = max(faster, key=lambda trial: quality_difference(trial).low)
    quality, lost = nearest.measurements[0], -POINTS * quality_difference(nearest).low
    bar = f"{points_in_words(max_drop, quality)} of {metric_in_words(quality)}"
    return Verdict(
        nearest,
        False,
        f"No faster model is shown to lose less than {bar}",
        f"{nearest.name} may lose {points_in_words(lost, quality)} on the {number(quality.n)} examples measured: "
        f"{headline(baseline, nearest)}",
    )


def verdict(trials: Sequence[Trial], *, max_drop: float = MAX_DROP) -> str:
    """Return the verdict of `judged` in one or two sentences; nothing if no trial was timed."""
    found = judged(trials, max_drop=max_drop)
    return "" if found is None else str(found)


def points_in_words(value: float, quality: Measurement) -> str:
    """Return a number of points, such as `1 point` or `2.8 points`; `1 %` of a metric that is compared by ratios.

    Args:
        value: the points.
        quality: a measurement of the metric that they are points of.
    """
    shown = number(value, places=1)
    shown = shown.removesuffix(".0") if value >= 1 else shown
    if quality.better == "lower":
        return f"{shown} %"
    return f"{shown} point{'' if shown == '1' else 's'}"


def _speed(trial: Trial) -> float:
    return least_speedup(trial) or 0.0


def _speed_in_words(trial: Trial) -> str:
    """How many times as fast it is; for single texts and in batches apart, where these differ."""
    found = _speedups(trial)
    if len(found) == len(SPEEDS) and _alike([versus for _, versus in found]):
        return _times(min((versus for _, versus in found), key=lambda versus: versus.value))
    single = (trial.conditions or {}).get("batch_size") == 1
    places = {"latency_median": "for single texts", "throughput": "for single texts" if single else "in batches"}
    parts = [f"{_times(versus)} {places[metric]}" for metric, versus in found]
    slower = [versus.value <= 1 - _EVEN for _, versus in found]
    return (" but " if len(set(slower)) > 1 else ", ").join(parts)


def _speedups(trial: Trial) -> list[tuple[str, Comparison]]:
    measured = {one.metric: one.versus for one in trial.measurements}
    return [(metric, versus) for metric in SPEEDS if (versus := measured.get(metric)) is not None]


def _alike(ratios: Sequence[Comparison]) -> bool:
    values = sorted(versus.value for versus in ratios)
    return all(high < _ALIKE * low and _side(high) == _side(low) for low, high in pairwise(values))


def _side(ratio: float) -> int:
    """Whether a speedup is one (1), a loss (-1) or neither (0)."""
    return (ratio >= 1 + _EVEN) - (ratio <= 1 - _EVEN)


def _times(versus: Comparison) -> str:
    side, value = _side(versus.value), versus.value
    shown = number(value, places=0 if value >= 10 else 1 if value >= 1 + _EVEN else 2)
    unsure = side != 0 and versus.low <= 1 <= versus.high
    ends = f" ({number(versus.low, places=2)} to {number(versus.high, places=2)})" if unsure else ""
    told = {1: f"{shown} times as fast", 0: "about as fast", -1: f"slower ({shown} times as fast)"}[side]
    return told + ends


def _quality(trial: Trial) -> str:
    """The difference of the first metric in points, with its interval."""
    quality, name = trial.measurements[0], metric_in_words(trial.measurements[0])
    if quality.versus is None:
        return ""
    versus = quality.versus.gain
    ends = points(versus).partition(" ")[2]  # the brackets, if there are any
    size = number(abs(versus.value) * POINTS, places=1)
    if float(size) == 0:
        return f"{name} the same {ends}".rstrip()
    ways = ("higher", "lower") if quality.better == "higher" else ("better", "worse")
    way = ways[0] if versus.value > 0 else ways[1]
    return f"{name} {points_in_words(float(size), quality)} {way} {ends}".rstrip()


def _size(baseline: Trial | None, trial: Trial) -> str:
    """The size on disk, beside that of the baseline."""
    models = (trial,) if baseline is None else (trial, baseline)
    sizes = [one for model in models for one in model.measurements if one.metric == "disk"]
    if len(sizes) < 2 or sizes[0].unit != sizes[1].unit:
        return ""
    own, other = (_short(one) for one in sizes)
    if own == other:
        return f"{own} {sizes[0].unit} as before" if sizes[0].value == sizes[1].value else ""
    return f"{own} {sizes[0].unit} instead of {other}"


def _short(one: Measurement) -> str:
    return number(one.value, places=0 if one.value >= 10 else 1 if one.value >= 1 else 2 if one.value >= 0.1 else None)
