"""The contents of a report of several models, which its page, Markdown and picture share."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import yaml

from whet.errors import InvalidData
from whet.evaluation.derived import SPEEDUPS, derived
from whet.evaluation.description import description_of
from whet.evaluation.formatting import TIMES, number
from whet.evaluation.frontier import Frontier
from whet.evaluation.headline import (
    MAX_DROP,
    POINTS,
    Verdict,
    headline,
    holds_bar,
    judged,
    least_speedup,
    points_in_words,
    quality_difference,
)
from whet.evaluation.measurement import Measurement
from whet.evaluation.slowness import busy_sentence
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words
from whet.methods.base import all_methods
from whet.report.collect import Confirmation, Result, flat_conditions
from whet.report.tables import TABLE_METRICS
from whet.utils.parameters import parameters
from whet.utils.precision import FP32

__all__ = [
    "SPEED_OF",
    "Axis",
    "ReportView",
    "differing_in_words",
    "find_measurement",
    "names_by_recipe",
    "reader_notes",
    "report_view",
    "step_text",
    "unit_of",
    "what_it_is",
    "words_of",
]

SPEED_OF = {speedup: metric for metric, speedup in SPEEDUPS.items()}
"""Times the baseline, for single texts and in batches, with the metric that each is the ratio of."""
COSTS = (*SPEED_OF, "latency_median", "throughput", "disk", "latency_p95", "parameters")
"""Metrics of the horizontal axis; what a user waits for comes first."""
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
    examples: str
    """What quality was measured on, such as `408 dev examples`."""
    quality: str
    """The task's main metric."""
    trials: tuple[Trial, ...]
    """The trials, the baseline first and the others by speed, each with its speedup as an additional measurement."""
    baseline: bool
    """Whether the first trial is the baseline; False if the baseline's measurements were not kept."""
    axes: tuple[Axis, ...]
    """One axis for every cost that all trials have."""
    columns: tuple[str, ...]
    """Metrics of the table: quality, speed and size."""
    others: tuple[str, ...]
    """Everything else that was measured."""
    series: tuple[str, ...]
    """Groups of trials by colour and shape: their runtimes and precisions, or the methods that made them."""
    series_of: tuple[int, ...]
    """For each trial, the index of its group in `series`."""
    max_drop: float
    """Points of quality that a model may lose; see `evaluation.headline.holds_bar`."""
    verdict: Verdict | None
    """What is won; None without comparisons."""
    evidence: Trial | None
    """The measurements that the verdict tells; of the model that a search chose, those on the dev split."""
    confirmations: tuple[Confirmation, ...]
    """What the best models of searches did on the dev split, which chose nothing."""
    common: Mapping[str, str]
    """Conditions with the same value for all trials."""
    differing: Mapping[str, tuple[str, ...]]
    """The other conditions, with the value for each trial."""
    notes: tuple[str, ...] = ()
    """What could not be read, a sentence each."""

    @property
    def against(self) -> str:
        """Name of the baseline."""
        return self.trials[0].name if self.baseline else self.common.get("baseline", "the baseline")

    @property
    def timed(self) -> bool:
        """Whether the speed of every trial was measured."""
        return any(axis.metric in (*SPEED_OF, *SPEED_OF.values()) for axis in self.axes)

    @property
    def best(self) -> int | None:
        """Index of the trial that wins; None if none does."""
        verdict = self.verdict
        if verdict is None or not verdict.won:
            return None
        return next(i for i, trial in enumerate(self.trials) if trial is verdict.trial)


def report_view(
    results: Sequence[Result],
    *,
    notes: Sequence[str] = (),
    confirmations: Sequence[Confirmation] = (),
    max_drop: float | None = None,
) -> ReportView:
    """Return the contents of a report.

    Args:
        results: trials, the baseline first.
        notes: what could not be read, a sentence each.
        confirmations: what the best models of searches did on the dev split.
        max_drop: points of quality that a model may lose; if None, as many as a search was given, or else `MAX_DROP`.

    Raises:
        InvalidData: there are no results, or they have no quality metric or no cost in common.
    """
    if not results:
        raise InvalidData("a report must have one trial at least, but got none; measure a model")
    trials = tuple(result.trial for result in results)
    compared = len(trials) > 1 or any(one.versus is not None for one in trials[0].measurements)
    if compared:
        trials = tuple(map(_with_speedups, trials))
    quality = trials[0].measurements[0].metric
    metrics = [{one.metric for one in trial.measurements if _is_finite(one)} for trial in trials]
    _check_common(trials, quality, metrics)
    series = [_series(trial, trials) for trial in trials]
    names = tuple(dict.fromkeys(series))
    baseline = trials[0].get(quality).versus is None
    max_drop = _bar(trials) if max_drop is None else max_drop
    verdict, evidence = _verdict(trials, confirmations, max_drop) if baseline or len(trials) == 1 else (None, None)
    measured = dict.fromkeys(one.metric for trial in trials for one in trial.measurements)
    main = (quality, *(SPEED_OF if compared else SPEED_OF.values()), "disk")
    columns = tuple(name for name in main if name in measured)
    return ReportView(
        task=str((trials[0].conditions or {}).get("task", "own data")),
        examples=_examples(trials[0]),
        quality=quality,
        trials=trials,
        baseline=baseline,
        axes=tuple(_axis(trials, quality, cost) for cost in COSTS if all(cost in each for each in metrics)),
        columns=columns,
        others=tuple(sorted({*measured} - {*columns}, key=_place)),
        series=names,
        series_of=tuple(map(names.index, series)),
        max_drop=max_drop,
        verdict=verdict,
        evidence=evidence,
        confirmations=tuple(confirmations),
        **_conditions(trials),
        notes=tuple(notes),
    )


def _check_common(trials: Sequence[Trial], quality: str, metrics: Sequence[Collection[str]]) -> None:
    """Refuse trials that nothing can be drawn of.

    Raises:
        InvalidData: they have no quality metric or no cost in common.
    """
    for trial, measured in zip(trials, metrics, strict=True):
        if quality not in measured:
            raise InvalidData(
                f"all models must have been measured in {quality}, but {trial.name} was not; measure them in one run"
            )
    if not any(all(cost in measured for measured in metrics) for cost in COSTS):
        without = [trial.name for trial, measured in zip(trials, metrics, strict=True) if not {*measured} & {*COSTS}]
        raise InvalidData(
            f"all models must have a time or a size in common, but {', '.join(without[:4]) or 'they'} have none; "
            "measure them in one run"
        )


def _bar(trials: Sequence[Trial]) -> float:
    """The points that a search was given, or the usual number."""
    given = [(trial.conditions or {}).get("max_drop") for trial in trials]
    return next((float(one) for one in given if isinstance(one, int | float)), MAX_DROP)


def _place(metric: str) -> tuple[int, str]:
    """Where a metric stands: those that the command line shows first, in its order."""
    return (TABLE_METRICS.index(metric) if metric in TABLE_METRICS else len(TABLE_METRICS), metric)


def _examples(trial: Trial) -> str:
    count = trial.measurements[0].n
    slice_of = (trial.conditions or {}).get("split")
    return f"{number(count)} {'dev ' if slice_of is None else ''}examples" + (f" of the {slice_of}" if slice_of else "")


def _verdict(
    trials: Sequence[Trial], confirmations: Sequence[Confirmation], max_drop: float
) -> tuple[Verdict | None, Trial | None]:
    """What is won, and the measurements that tell it: of what a search chose, those on the dev split."""
    if len(trials) == 1:
        return _verdict_alone(trials[0], max_drop)
    chosen = [one for one in confirmations if one.chosen is not None]
    own = next((trial for trial in trials if len(chosen) == 1 and trial.name == chosen[0].chosen), None)
    if own is None or not holds_bar(own, max_drop=max_drop):
        found = judged(trials, max_drop=max_drop)
        return found, None if found is None else found.trial
    on_dev = _with_speedups(chosen[0].trial)
    quality, detail = on_dev.measurements[0], ""
    if not holds_bar(on_dev, max_drop=max_drop):
        lost, bar = -POINTS * quality_difference(on_dev).low, points_in_words(max_drop, quality)
        shown = f"{points_in_words(lost, quality)}, more than {bar}"
        detail = f"On the {number(quality.n)} dev examples it may lose {shown}"
    return Verdict(own, True, headline(trials[0], on_dev), detail), on_dev


def _verdict_alone(trial: Trial, max_drop: float) -> tuple[Verdict | None, Trial | None]:
    """What a model wins against a baseline that was not kept; nothing for a baseline."""
    if trial.measurements[0].versus is None:
        return None, None
    speedup = least_speedup(trial)
    won = speedup is not None and speedup > 1 and holds_bar(trial, max_drop=max_drop)
    return Verdict(trial, won, headline(None, trial)), trial


def find_measurement(trial: Trial, metric: str) -> Measurement | None:
    """Return the trial's measurement of a metric, or None."""
    return next((one for one in trial.measurements if one.metric == metric), None)


def unit_of(view: ReportView, metric: str) -> str:
    """Return the unit of a metric, which at least one trial must have."""
    return next(one.unit for trial in view.trials if (one := find_measurement(trial, metric)) is not None)


def words_of(view: ReportView, metric: str) -> str:
    """Return the name of a metric in words, which at least one trial must have."""
    return next(metric_in_words(one) for trial in view.trials if (one := find_measurement(trial, metric)) is not None)


def reader_notes(view: ReportView) -> list[str]:
    """Return the warnings that a reader must see before the figures."""
    warnings = []
    if not view.baseline:
        warnings.append(f"The baseline, {view.against}, is not shown, because its measurements were not kept.")
    if len(set(view.differing.get("measured", ()))) > 1:
        warnings.append(
            "These models were measured in several runs, and the speed of a machine varies over time. Speedups, which "
            "come from a single run each, are more reliable than times."
        )
    told = [*view.trials, *(one.trial for one in view.confirmations)]
    busy = [busy_sentence(trial.conditions) for trial in told]
    warnings += dict.fromkeys(filter(None, busy))
    versions = [key for key in view.differing if key.startswith("versions.")]
    if versions:
        warnings.append(f"Software versions differ between models: {', '.join(versions)}; see the conditions.")
    return [*warnings, *(f"Not shown: {note}." for note in view.notes)]


def names_by_recipe(view: ReportView) -> dict[str, list[str]]:
    """Return every recipe in its file form, or else what a model is, with the names of the trials that are of it."""
    names: dict[str, list[str]] = {}
    for trial in view.trials:
        text = yaml.safe_dump([*map(dict, trial.recipe)], sort_keys=False) if trial.recipe else description_of(trial)
        names.setdefault(text, []).append(trial.name)
    return names


def what_it_is(trial: Trial) -> str:
    """Return what a model is: the steps of its recipe, or else how it was made, in words."""
    return " → ".join(map(step_text, trial.recipe)) or description_of(trial)


def differing_in_words(view: ReportView) -> dict[str, list[tuple[str, list[str]]]]:
    """Return, for each condition that differs, its values, with the names of the trials that have each."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for key, values in view.differing.items():
        names: dict[str, list[str]] = {}
        for trial, value in zip(view.trials, values, strict=True):
            names.setdefault(value, []).append(trial.name)
        found[key] = list(names.items())
    return found


def step_text(step: Mapping[str, Any]) -> str:
    """Return a step of a recipe in one line: the method, and the parameters that differ from its defaults."""
    name = str(step.get("method", "?"))
    method = all_methods().get(name)
    defaults = {} if method is None else {row.name: row.default for row in parameters(method)}
    step = step if method is None else method.renewed(step)
    changed = [f"{key}={value}" for key, value in step.items() if key != "method" and value != defaults.get(key)]
    return " ".join([name.rpartition(".")[2], *changed])


def _with_speedups(trial: Trial) -> Trial:
    """Return the trial with how many times as fast it is as the baseline in the same rounds."""
    speedups = [one for one in derived(trial.measurements) if one.metric in SPEED_OF]
    return replace(trial, measurements=[*trial.measurements, *speedups])


def _is_finite(measurement: Measurement) -> bool:
    return math.isfinite(measurement.low) and math.isfinite(measurement.high)


def _axis(trials: Sequence[Trial], quality: str, cost: str) -> Axis:
    first = trials[0].get(cost)
    frontier = Frontier.of(trials, (quality, cost)).trials
    order = sorted((i for i, trial in enumerate(trials) if trial in frontier), key=lambda i: trials[i].get(cost).value)
    label, unit = metric_in_words(first), "times the baseline" if first.unit == TIMES else first.unit
    return Axis(cost, f"{label} ({unit})" if unit not in ("", "1/s") else label, first.better, tuple(order))


def _series(trial: Trial, trials: Sequence[Trial]) -> str:
    def target(trial: Trial) -> str:
        conditions = trial.conditions or {}
        return " ".join(str(conditions[key]) for key in _TARGET if conditions.get(key) not in (None, FP32))

    if len(set(map(target, trials))) > 1:
        return target(trial) or "unknown"
    steps = dict.fromkeys(str(step.get("method", "?")).rpartition(".")[2] for step in trial.recipe)
    return " + ".join(steps) or description_of(trial).partition(":")[0]


def _conditions(trials: Sequence[Trial]) -> dict[str, Any]:
    conditions = [flat_conditions(trial.conditions or {}) | {"seed": str(trial.seed)} for trial in trials]
    keys = dict.fromkeys(key for trial in conditions for key in trial)
    values = {key: tuple(trial.get(key, "not recorded") for trial in conditions) for key in keys}
    common = {key: each[0] for key, each in values.items() if len(set(each)) == 1}
    return {"common": common, "differing": {key: each for key, each in values.items() if key not in common}}
