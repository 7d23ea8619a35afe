"""One finished run: what was done, with which seed, and everything that was measured, as one JSON line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from whet.errors import InvalidArtifact, UnknownName
from whet.evaluation.derived import derived
from whet.evaluation.display import models_grid, summary, trial_grid
from whet.evaluation.formatting import with_interval
from whet.evaluation.measurement import Measurement
from whet.evaluation.places import short_name, short_places_in_words
from whet.evaluation.words import metric_in_words
from whet.utils.lookup import advice_on
from whet.utils.schema import from_json, from_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trial", "Trials", "current_names"]

RENAMED_METRICS = {"changed": "disagreement"}
RENAMED_CONDITIONS = {"dtype": "precision", "waiting": "omp_wait_policy"}
RENAMED_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""What version 0.1.0 called metrics, conditions and precisions, and what they are called now."""
ALIASES = {"latency": "latency_median", "one text": "latency_median", "size": "disk"}
"""Short names of metrics, as tables have them in the heads of their columns."""
REMEDY = "remove it, and measure again"
"""What to do about a trial that cannot be read."""


@dataclass(frozen=True)
class Trial:
    """A model and its measurements."""

    name: str
    """What tables call it."""
    recipe: Sequence[Mapping[str, Any]]
    """The recipe's file form; empty for a baseline."""
    seed: int
    """Of sampling, resampling and the order of runs."""
    measurements: Sequence[Measurement]
    """What was measured."""
    artifact: str | None = None
    """Digest of the model's files; None if it was not saved."""
    conditions: Mapping[str, Any] | None = None
    """Machine, threads, versions, task, data: what all measurements have in common."""
    made: str | None = None
    """How whet made the model, in words, such as `DistilBERT-like student: layers 1, 3, 5 of base`; None if it did not,
    or if that is not known."""

    def get(self, metric: str) -> Measurement:
        """Return the measurement of that metric.

        Args:
            metric: its name, such as `latency_median` or `disk`, or what a table calls it: `latency`, `size`,
                `size on disk`; also `speedup` in batches, `speedup_single` for single texts, and `change`, the points
                of quality gained, which follow from the others.

        Raises:
            UnknownName: it was not measured; the message gives the nearest.
        """
        for measurement in self.measurements:
            if measurement.metric == metric:
                return measurement
        rows, wanted = [*self.measurements, *derived(self.measurements)], _folded(metric)
        for row in rows:
            if wanted in map(_folded, (row.metric, row.title, metric_in_words(row))):
                return row
        if wanted in ALIASES and any(row.metric == ALIASES[wanted] for row in rows):
            return self.get(ALIASES[wanted])
        known = advice_on(metric, [row.metric for row in rows])
        raise UnknownName(f"the metric must have been measured, but got {metric!r}; {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return {
            "name": self.name,
            "recipe": list(self.recipe),
            "seed": self.seed,
            "artifact": self.artifact,
            "made": self.made,
            "conditions": self.conditions,
            "measurements": [measurement.to_dict() for measurement in self.measurements],
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], *, what: str = "a trial") -> Self:
        """Return the trial that `to_dict` described; the names of version 0.1.0 become today's.

        Args:
            entry: JSON values.
            what: names them in the message.

        Raises:
            InvalidArtifact: they are not those of a trial.
        """
        return from_values(cls, _with_current_names(entry), what=what, error=InvalidArtifact, remedy=REMEDY)

    def to_json(self) -> str:
        """Return the trial as one line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, line: str | bytes, *, what: str = "a trial") -> Self:
        """Return the trial that `to_json` wrote; see `from_dict`."""
        entry = from_json(dict, line, what=what, error=InvalidArtifact, remedy=REMEDY)
        return cls.from_dict(entry, what=what)

    def __repr__(self) -> str:
        told = [one for one in summary(self.measurements) if one in self.measurements or one.versus is not None]
        shown = ", ".join(f"{one.metric} {with_interval(one)}" for one in told)
        return f"Trial({self.name}: {shown})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: everything that was measured."""
        return trial_grid(self.measurements).html(caption=self.name)


class Trials(list[Trial]):
    """Trials that print as a table; the first is the baseline, and a star marks what differs from it (p < 0.05)."""

    def __repr__(self) -> str:
        legend = "± half of the 95 % interval; * differs from the first row, p < 0.05"
        names = [short_name(trial.name, trial.conditions) for trial in self]
        if names != [trial.name for trial in self]:
            legend = "\n".join([legend, *short_places_in_words(trial.conditions for trial in self)])
        table = models_grid([(name, trial.measurements) for name, trial in zip(names, self, strict=True)]).text()
        return f"{table}\n{legend}" if self else table

    def to_frame(self) -> "pd.DataFrame":
        """Return a table for analysis: one row per trial, by its name, with all that was measured and what follows.

        Each metric has three columns: its value, and the ends of its 95 % interval, as in `accuracy`, `accuracy_low`
        and `accuracy_high`. `frame.attrs["units"]` has the units.
        """
        import pandas as pd

        rows, units = [], {}
        for trial in self:
            places = {key: (trial.conditions or {}).get(key) for key in ("runtime", "precision")}
            row: dict[str, Any] = {"model": trial.name, **places}
            for one in (*trial.measurements, *derived(trial.measurements)):
                row |= {one.metric: one.value, f"{one.metric}_low": one.low, f"{one.metric}_high": one.high}
                units[one.metric] = one.unit
            rows.append(row)
        frame = pd.DataFrame(rows, columns=None if rows else ["model"]).set_index("model")
        frame.attrs["units"] = units
        return frame

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the summary of every trial."""
        return models_grid([(trial.name, trial.measurements) for trial in self]).html()


def _folded(name: object) -> str:
    """A name as people may write it: case, underscores and hyphens do not count."""
    return " ".join(str(name).lower().replace("_", " ").replace("-", " ").split())


def _with_current_names(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same JSON values with today's names, where they have the shape that a trial has."""
    rows, conditions = entry.get("measurements"), entry.get("conditions")
    new: dict[str, Any] = {}
    if isinstance(rows, list):
        new["measurements"] = [_renamed_metric(row) if isinstance(row, dict) else row for row in rows]
    if isinstance(conditions, dict):
        new["conditions"] = current_names(conditions)
    return {**entry, **new}


def _renamed_metric(row: Mapping[str, Any]) -> Mapping[str, Any]:
    metric = row.get("metric")
    return {**row, "metric": RENAMED_METRICS[metric]} if isinstance(metric, str) and metric in RENAMED_METRICS else row


def current_names(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return conditions under today's names, where some may have those of version 0.1.0."""
    renamed = {}
    for key, value in conditions.items():
        new = RENAMED_CONDITIONS.get(key, key)
        if new == key or new not in conditions:  # searches wrote both `dtype` and `precision`
            renamed[new] = value
    if "precision" in renamed:
        precision = renamed["precision"]
        renamed["precision"] = RENAMED_PRECISIONS.get(precision, precision) if isinstance(precision, str) else precision
    return renamed
