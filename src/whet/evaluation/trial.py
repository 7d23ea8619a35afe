"""One finished run: what was done, with which seed, and everything that was measured, as one JSON line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from whet.errors import UnknownName
from whet.evaluation.display import models_grid, summary, trial_grid
from whet.evaluation.formatting import with_interval
from whet.evaluation.measurement import Measurement

__all__ = ["Trial", "Trials", "current_names"]

RENAMED_METRICS = {"changed": "disagreement"}
RENAMED_CONDITIONS = {"dtype": "precision", "waiting": "omp_wait_policy"}
RENAMED_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""What version 0.1.0 called metrics, conditions and precisions, and what they are called now."""


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

    def get(self, metric: str) -> Measurement:
        """Return the measurement of that metric.

        Raises:
            UnknownName: it was not measured.
        """
        for measurement in self.measurements:
            if measurement.metric == metric:
                return measurement
        known = ", ".join(measurement.metric for measurement in self.measurements)
        raise UnknownName(f"the metric must have been measured, but got {metric!r}; choose one of {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return {
            "name": self.name,
            "recipe": list(self.recipe),
            "seed": self.seed,
            "artifact": self.artifact,
            "conditions": self.conditions,
            "measurements": [measurement.to_dict() for measurement in self.measurements],
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """Return the trial that `to_dict` described; the names of version 0.1.0 become today's."""
        measurements = [Measurement.from_dict(_renamed_metric(row)) for row in entry["measurements"]]
        conditions = None if entry["conditions"] is None else current_names(entry["conditions"])
        return cls(entry["name"], entry["recipe"], entry["seed"], measurements, entry["artifact"], conditions)

    def to_json(self) -> str:
        """Return the trial as one line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the trial that `to_json` wrote."""
        return cls.from_dict(json.loads(line))

    def __repr__(self) -> str:
        shown = ", ".join(f"{one.metric} {with_interval(one)}" for one in summary(self.measurements))
        return f"Trial({self.name}: {shown})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: everything that was measured."""
        return trial_grid(self.measurements).html(caption=self.name)


class Trials(list[Trial]):
    """Trials that print as a table; the first is the baseline, and a star marks what differs from it (p < 0.05)."""

    def __repr__(self) -> str:
        return models_grid(self._named()).text()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the summary of every trial."""
        return models_grid(self._named()).html()

    def _named(self) -> list[tuple[str, Sequence[Measurement]]]:
        return [(trial.name, trial.measurements) for trial in self]


def _renamed_metric(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**row, "metric": RENAMED_METRICS.get(row["metric"], row["metric"])}


def current_names(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return conditions under today's names, where some may have those of version 0.1.0."""
    renamed = {}
    for key, value in conditions.items():
        new = RENAMED_CONDITIONS.get(key, key)
        if new == key or new not in conditions:  # searches wrote both `dtype` and `precision`
            renamed[new] = value
    if "precision" in renamed:
        renamed["precision"] = RENAMED_PRECISIONS.get(renamed["precision"], renamed["precision"])
    return renamed
