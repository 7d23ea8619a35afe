"""The contents of a report of several models, which its page, Markdown and picture share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import yaml

from whet.errors import InvalidData
from whet.evaluation.formatting import TIMES
from whet.evaluation.frontier import Frontier
from whet.evaluation.headline import fastest_that_holds
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.methods.base import all_methods
from whet.report.collect import Result, flat_conditions
from whet.report.tables import TABLE_METRICS
from whet.utils.parameters import parameters
from whet.utils.precision import FP32

__all__ = [
    "SPEEDUP",
    "Axis",
    "ReportView",
    "find_measurement",
    "names_by_recipe",
    "reader_notes",
    "report_view",
    "step_text",
    "title_of",
    "unit_of",
]

SPEEDUP = "speedup"
COSTS = {
    "latency_median": "latency of one sentence, median",
    "latency_p95": "latency of one sentence, 95th percentile",
    SPEEDUP: "speedup in sentences per second",
    "throughput": "sentences per second",
    "disk": "size on disk",
    "parameters": "parameters",
}
"""Metrics of the horizontal axis, with their labels."""
_TARGET = ("runtime", "precision")
"""Conditions that differ between trials on purpose."""


class Axis(NamedTuple):
    """A horizontal axis against which quality is shown."""

    metric: str
    """Metric of the axis."""
    label: str
    """Label of the axis, with its unit."""
    better: str
    """Better direction: higher or lower."""
    frontier: tuple[int, ...]
    """Indices of the trials that no other trial dominates, from left to right."""


@dataclass(frozen=True)
class ReportView:
    """The contents of a report: trials side by side."""

    task: str
    """Name of the task."""
    examples: int
    """Number of dev examples on which quality was measured."""
    quality: str
    """The task's main metric."""
    trials: tuple[Trial, ...]
    """The trials, the baseline first and the others by speed, each with its speedup as an additional measurement."""
    baseline: bool
    """Whether the first trial is the baseline; False if the baseline's measurements were not kept."""
    axes: tuple[Axis, ...]
    """One axis for every cost that all trials have."""
    columns: tuple[str, ...]
    """Metrics of the table."""
    series: tuple[str, ...]
    """Groups of trials by colour and shape: their runtimes and precisions, or the methods that made them."""
    series_of: tuple[int, ...]
    """For each trial, the index of its group in `series`."""
    best: int | None
    """Index of the fastest trial shown to lose less than the bar, or else of the baseline; None without comparisons."""
    common: Mapping[str, str]
    """Conditions with the same value for all trials."""
    differing: Mapping[str, tuple[str, ...]]
    """The other conditions, with the value for each trial."""
    notes: tuple[str, ...] = ()
    """What could not be read, a sentence each."""


def report_view(results: Sequence[Result], *, notes: Sequence[str] = ()) -> ReportView:
    """Return the contents of a report.

    Args:
        results: trials, the baseline first.
        notes: what could not be read, a sentence each.

    Raises:
        InvalidData: there are no results, or they have no quality metric or no cost in common.
    """
    if not results:
        raise InvalidData("a report must have one trial at least, but got none; measure a model")
    trials = tuple(_with_speedup(result.trial) for result in results)
    quality = trials[0].measurements[0].metric
    metrics = [{one.metric for one in trial.measurements if _is_finite(one)} for trial in trials]
    for trial, measured in zip(trials, metrics, strict=True):
        if quality not in measured:
            raise InvalidData(
                f"all models must have been measured in {quality}, but {trial.name} was not; measure them in one run"
            )
    axes = tuple(_axis(trials, quality, cost) for cost in COSTS if all(cost in measured for measured in metrics))
    if not axes:
        without = [trial.name for trial, measured in zip(trials, metrics, strict=True) if not measured & set(COSTS)]
        raise InvalidData(
            f"all models must have a time or a size in common, but {', '.join(without[:4]) or 'they'} have none; "
            "measure them in one run"
        )
    series = [_series(trial, trials) for trial in trials]
    names = tuple(dict.fromkeys(series))
    baseline = trials[0].get(quality).versus is None
    timed = all(SPEEDUP in measured for measured in metrics) and len(trials) > 1
    shown = (*TABLE_METRICS, SPEEDUP)
    return ReportView(
        task=str((trials[0].conditions or {}).get("task", "own data")),
        examples=trials[0].get(quality).n,
        quality=quality,
        trials=trials,
        baseline=baseline,
        axes=axes,
        columns=(quality, *(name for name in shown if name != quality and any(name in each for each in metrics))),
        series=names,
        series_of=tuple(map(names.index, series)),
        best=trials.index(fastest_that_holds(trials)) if baseline and timed else None,
        **_conditions(trials),
        notes=tuple(notes),
    )


def find_measurement(trial: Trial, metric: str) -> Measurement | None:
    """Return the trial's measurement of a metric, or None."""
    return next((one for one in trial.measurements if one.metric == metric), None)


def unit_of(view: ReportView, metric: str) -> str:
    """Return the unit of a metric, which at least one trial must have."""
    return next(one.unit for trial in view.trials if (one := find_measurement(trial, metric)) is not None)


def title_of(view: ReportView, metric: str) -> str:
    """Return the title of a metric, which at least one trial must have."""
    return next(one.title for trial in view.trials if (one := find_measurement(trial, metric)) is not None)


def reader_notes(view: ReportView) -> list[str]:
    """Return the warnings that a reader must see before the figures."""
    warnings = []
    if not view.baseline:
        baseline = view.common.get("baseline", "the baseline")
        warnings.append(f"The baseline, {baseline}, is not shown, because its measurements were not kept.")
    if len(set(view.differing.get("measured", ()))) > 1:
        warnings.append(
            "These models were measured in several runs, and the speed of a machine varies over time. Speedups, which "
            "come from a single run each, are more reliable than times."
        )
    versions = [key for key in view.differing if key.startswith("versions.")]
    if versions:
        warnings.append(f"Software versions differ between models: {', '.join(versions)}; see the conditions.")
    return [*warnings, *(f"Not shown: {note}." for note in view.notes)]


def names_by_recipe(view: ReportView) -> dict[str, list[str]]:
    """Return every recipe in its file form, with the names of the trials that it made."""
    names: dict[str, list[str]] = {}
    for trial in view.trials:
        text = yaml.safe_dump([*map(dict, trial.recipe)], sort_keys=False) if trial.recipe else "not compressed"
        names.setdefault(text, []).append(trial.name)
    return names


def step_text(step: Mapping[str, Any]) -> str:
    """Return a step of a recipe in one line: the method, and the parameters that differ from its defaults."""
    name = str(step.get("method", "?"))
    method = all_methods().get(name)
    defaults = {} if method is None else {row.name: row.default for row in parameters(method)}
    step = step if method is None else method.renewed(step)
    changed = [f"{key}={value}" for key, value in step.items() if key != "method" and value != defaults.get(key)]
    return " ".join([name.rpartition(".")[2], *changed])


def _with_speedup(trial: Trial) -> Trial:
    """Return the trial with its speedup, the ratio of its throughput to the baseline's in the same rounds."""
    timed = next((one for one in trial.measurements if one.metric == "throughput"), None)
    if timed is None:
        return trial
    ends = (1.0, 1.0, 1.0) if timed.versus is None else (timed.versus.value, timed.versus.low, timed.versus.high)
    value, low, high = ends
    speedup = Measurement(metric=SPEEDUP, value=value, low=low, high=high, unit=TIMES, n=timed.n, better="higher")
    return replace(trial, measurements=[*trial.measurements, speedup])


def _is_finite(measurement: Measurement) -> bool:
    return math.isfinite(measurement.low) and math.isfinite(measurement.high)


def _axis(trials: Sequence[Trial], quality: str, cost: str) -> Axis:
    first = trials[0].get(cost)
    frontier = Frontier.of(trials, (quality, cost)).trials
    order = sorted((i for i, trial in enumerate(trials) if trial in frontier), key=lambda i: trials[i].get(cost).value)
    label = f"{COSTS[cost]} ({first.unit})" if first.unit not in ("", "1/s", TIMES) else COSTS[cost]
    return Axis(cost, label, first.better, tuple(order))


def _series(trial: Trial, trials: Sequence[Trial]) -> str:
    def target(trial: Trial) -> str:
        conditions = trial.conditions or {}
        return " ".join(str(conditions[key]) for key in _TARGET if conditions.get(key) not in (None, FP32))

    if len(set(map(target, trials))) > 1:
        return target(trial) or "unknown"
    steps = dict.fromkeys(str(step.get("method", "?")).rpartition(".")[2] for step in trial.recipe)
    return " + ".join(steps) or "not compressed"


def _conditions(trials: Sequence[Trial]) -> dict[str, Any]:
    conditions = [flat_conditions(trial.conditions or {}) | {"seed": str(trial.seed)} for trial in trials]
    keys = dict.fromkeys(key for trial in conditions for key in trial)
    values = {key: tuple(trial.get(key, "not recorded") for trial in conditions) for key in keys}
    common = {key: each[0] for key, each in values.items() if len(set(each)) == 1}
    return {"common": common, "differing": {key: each for key, each in values.items() if key not in common}}
