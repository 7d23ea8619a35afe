"""What a report of several models shows, in the words and numbers that its page, table and picture share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import yaml

from whet.errors import InvalidData
from whet.evaluation.formatting import TIMES
from whet.evaluation.frontier import Frontier
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.methods.base import all_methods
from whet.report.collect import Result, flat
from whet.report.tables import SHOWN, fastest_as_good
from whet.utils.parameters import parameters
from whet.utils.precision import FP32

__all__ = ["SPEEDUP", "Axis", "Overview", "find", "notes", "overview", "recipes", "step_text", "unit_of"]

SPEEDUP = "speedup"
COSTS = {
    "latency_median": "latency of one sentence, median",
    "latency_p95": "latency of one sentence, 95th percentile",
    SPEEDUP: "sentences a second, times the baseline",
    "throughput": "sentences a second",
    "disk": "size on disk",
    "parameters": "parameters",
}
"""What quality can be set against, and how an axis calls it."""
_OWN = ("runtime", "precision")
"""Conditions that differ from row to row on purpose."""


class Axis(NamedTuple):
    """One way to see what quality costs."""

    metric: str
    """The metric of the horizontal axis."""
    label: str
    """What the axis calls it, with its unit."""
    better: str
    """Which way is good: higher or lower."""
    frontier: tuple[int, ...]
    """Which of the trials nothing dominates, from left to right."""


@dataclass(frozen=True)
class Overview:
    """Trials side by side."""

    task: str
    """Its name."""
    examples: int
    """Behind the quality of each."""
    quality: str
    """The metric that counts."""
    trials: tuple[Trial, ...]
    """The baseline first, then the fastest; each with its speedup as one more measurement."""
    baseline: bool
    """Whether the first of them is the baseline; it is not where its measurements were not kept."""
    axes: tuple[Axis, ...]
    """Every cost that all trials have."""
    columns: tuple[str, ...]
    """Metrics of the table."""
    series: tuple[str, ...]
    """What tells trials apart by colour and shape: where they run, or by which methods they were made."""
    series_of: tuple[int, ...]
    """For each trial, its place in `series`."""
    best: int | None
    """The fastest without a real loss of quality; None where there is nothing to compare."""
    common: Mapping[str, str]
    """Conditions that all share."""
    differing: Mapping[str, tuple[str, ...]]
    """The others, with the values of each trial."""


def overview(results: Sequence[Result]) -> Overview:
    """Return what a report of these results shows.

    Raises:
        InvalidData: there are none, or they were not measured in the same quality, or have no cost in common.
    """
    if not results:
        raise InvalidData("a report must be of one trial at least, but got none; measure a model")
    trials = tuple(_with_speedup(result.trial) for result in results)
    quality = trials[0].measurements[0].metric
    known = [{one.metric for one in trial.measurements if _is_finite(one)} for trial in trials]
    for trial, own in zip(trials, known, strict=True):
        if quality not in own:
            raise InvalidData(
                f"all models must have been measured in {quality}, but {trial.name} was not; measure them in one run"
            )
    axes = tuple(_axis(trials, quality, cost) for cost in COSTS if all(cost in own for own in known))
    if not axes:
        bare = [trial.name for trial, own in zip(trials, known, strict=True) if not own & set(COSTS)]
        raise InvalidData(
            f"all models must have a time or a size in common, but {', '.join(bare[:4]) or 'they'} have none; measure "
            "them in one run"
        )
    series = [_series(trial, trials) for trial in trials]
    names = tuple(dict.fromkeys(series))
    baseline = trials[0].get(quality).versus is None
    timed = all(SPEEDUP in own for own in known) and len(trials) > 1
    shown = (*SHOWN, SPEEDUP)
    return Overview(
        task=str((trials[0].conditions or {}).get("task", "own data")),
        examples=trials[0].get(quality).n,
        quality=quality,
        trials=trials,
        baseline=baseline,
        axes=axes,
        columns=(quality, *(name for name in shown if name != quality and any(name in own for own in known))),
        series=names,
        series_of=tuple(map(names.index, series)),
        best=trials.index(fastest_as_good(trials, speed=SPEEDUP)) if baseline and timed else None,
        **_conditions(trials),
    )


def find(trial: Trial, metric: str) -> Measurement | None:
    """Return the trial's measurement of that metric, or None where there is none."""
    return next((one for one in trial.measurements if one.metric == metric), None)


def unit_of(view: Overview, metric: str) -> str:
    """Return the unit of a metric that some trial has."""
    return next(one.unit for trial in view.trials if (one := find(trial, metric)) is not None)


def notes(view: Overview) -> list[str]:
    """Return what a reader must know before the figures."""
    found = []
    if not view.baseline:
        named = view.common.get("baseline", "the baseline")
        found.append(f"The baseline, {named}, is not shown: what was measured of it was not kept.")
    if len(set(view.differing.get("measured", ()))) > 1:
        found.append(
            "These models were measured in several runs. Machines are not equally fast at all times: trust speedups, "
            "which come from one run each, before times."
        )
    versions = [key for key in view.differing if key.startswith("versions.")]
    if versions:
        found.append(f"Versions are not the same for all: {', '.join(versions)}; see the conditions.")
    return found


def recipes(view: Overview) -> dict[str, list[str]]:
    """Return every recipe in its file form, with the names of the trials that were made by it."""
    found: dict[str, list[str]] = {}
    for trial in view.trials:
        text = yaml.safe_dump([*map(dict, trial.recipe)], sort_keys=False) if trial.recipe else "not compressed"
        found.setdefault(text, []).append(trial.name)
    return found


def step_text(step: Mapping[str, Any]) -> str:
    """Return a step of a recipe in one line: the method, and the parameters that are not its defaults."""
    name = str(step.get("method", "?"))
    method = all_methods().get(name)
    defaults = {} if method is None else {row.name: row.default for row in parameters(method)}
    step = step if method is None else method.renewed(step)
    given = [f"{key}={value}" for key, value in step.items() if key != "method" and value != defaults.get(key)]
    return " ".join([name.rpartition(".")[2], *given])


def _with_speedup(trial: Trial) -> Trial:
    """The same trial with its throughput over the baseline's, in the same rounds, as a measurement."""
    timed = next((one for one in trial.measurements if one.metric == "throughput"), None)
    if timed is None:
        return trial
    ends = (1.0, 1.0, 1.0) if timed.versus is None else (timed.versus.value, timed.versus.low, timed.versus.high)
    value, low, high = ends
    own = Measurement(metric=SPEEDUP, value=value, low=low, high=high, unit=TIMES, n=timed.n, better="higher")
    return replace(trial, measurements=[*trial.measurements, own])


def _is_finite(one: Measurement) -> bool:
    return math.isfinite(one.low) and math.isfinite(one.high)


def _axis(trials: Sequence[Trial], quality: str, cost: str) -> Axis:
    one = trials[0].get(cost)
    kept = Frontier.of(trials, (quality, cost)).trials
    places = sorted((i for i, trial in enumerate(trials) if trial in kept), key=lambda i: trials[i].get(cost).value)
    label = f"{COSTS[cost]} ({one.unit})" if one.unit not in ("", "1/s", TIMES) else COSTS[cost]
    return Axis(cost, label, one.better, tuple(places))


def _series(trial: Trial, trials: Sequence[Trial]) -> str:
    def place(one: Trial) -> str:
        own = one.conditions or {}
        return " ".join(str(own[key]) for key in _OWN if own.get(key) not in (None, FP32))

    if len({place(one) for one in trials}) > 1:
        return place(trial) or "unknown"
    steps = dict.fromkeys(str(step.get("method", "?")).rpartition(".")[2] for step in trial.recipe)
    return " + ".join(steps) or "not compressed"


def _conditions(trials: Sequence[Trial]) -> dict[str, Any]:
    known = [flat(trial.conditions or {}) | {"seed": str(trial.seed)} for trial in trials]
    keys = dict.fromkeys(key for own in known for key in own)
    values = {key: tuple(own.get(key, "not recorded") for own in known) for key in keys}
    common = {key: own[0] for key, own in values.items() if len(set(own)) == 1}
    return {"common": common, "differing": {key: own for key, own in values.items() if key not in common}}
