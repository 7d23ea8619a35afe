"""What was measured, found again in folders: one trial a model, all of them alike in task, data and machine."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidData, InvalidParameter
from whet.evaluation import records
from whet.evaluation.trial import Trial, current_names
from whet.models import artifact

__all__ = ["ALIKE", "Result", "collect", "flat"]

ALIKE = (
    "task",
    "data_sha256",
    "cpu",
    "instruction_sets",
    "device",
    "cores",
    "threads",
    "omp_wait_policy",
    "max_length",
    "batch_size",
    "batch_tokens",
    "padding",
    "baseline",
    "baseline_artifact",
)
"""Conditions that all trials of a report share: times taken under others, or compared with others, cannot be set side
by side."""
TIMED = "throughput"
_NONE = "none"
"""What stands for a condition that a trial does not have."""


class Result(NamedTuple):
    """A trial, and where its model is."""

    trial: Trial
    """What was measured."""
    folder: Path | None = None
    """The artifact that it was measured on; None if it is not there any more, or never was one."""


def collect(folders: Sequence[Path], *, only: Mapping[str, str] | None = None) -> list[Result]:
    """Return the newest trial of every model and runtime below these folders: the baseline first, then the fastest.

    Args:
        folders: looked through with all that is in them, except hidden ones.
        only: conditions that trials must have to be looked at, as `flat` spells them.

    Raises:
        InvalidParameter: a folder is not there, or no trial has such a condition.
        InvalidArtifact: measurements cannot be read.
        InvalidData: nothing was measured, or trials are not alike.
    """
    found = [result for result in _found(folders) if result.trial.measurements]
    if not found:
        raise _nothing(folders)
    chosen = _only(found, only or {})
    _check_alike(chosen)
    newest = _newest(chosen)
    baselines = [result for result in newest if _is_baseline(result.trial)]
    if len(baselines) > 1:
        names = ", ".join(result.trial.name for result in baselines)
        raise InvalidData(
            f"all models must have been measured against one baseline, but got {names}; measure them in one run: "
            "whet measure BASELINE MODEL ... --task TASK"
        )
    return _told_apart(sorted(newest, key=lambda result: (not _is_baseline(result.trial), -_speed(result.trial))))


def flat(conditions: Mapping[str, Any]) -> dict[str, str]:
    """Return conditions as text by name; what is inside another gets both names, such as `versions.torch`."""
    found: dict[str, str] = {}
    for key, value in conditions.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": text for inner, text in flat(value).items()}
        elif isinstance(value, list | tuple):
            found[key] = ", ".join(map(str, value))
        else:
            found[key] = _NONE if value is None else str(value)
    return found


def _found(folders: Sequence[Path]) -> list[Result]:
    """Every trial, oldest first in each file; the same line in two files stands for one.

    A folder that keeps the rows of a run, such as a search's, shows these, and not what its models were measured in
    elsewhere.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InvalidParameter(f"a report must be of folders that exist, but got {folder}; check the path")
    models = {artifact.model_digest(place): place for place in reversed(_places(folders, artifact.MANIFEST))}
    found: dict[str, Result] = {}
    runs = [one for one in folders if (one / artifact.MEASUREMENTS).is_file() and not artifact.is_artifact(one)]
    for place in (*runs, *_places([one for one in folders if one not in runs], artifact.MEASUREMENTS)):
        for trial in records.trials(place):
            _check_whole(trial, place)
            found.setdefault(trial.to_json(), Result(trial, models.get(trial.artifact or "")))
    return list(found.values())


def _places(folders: Sequence[Path], name: str) -> list[Path]:
    """The folders with a file of that name, without drafts and scratch folders, whose names begin with a dot."""
    return [
        path.parent
        for folder in folders
        for path in sorted(folder.rglob(name))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _check_whole(trial: Trial, place: Path) -> None:
    steps = isinstance(trial.recipe, list) and all(isinstance(step, dict) for step in trial.recipe)
    if not (isinstance(trial.name, str) and isinstance(trial.conditions, dict) and steps):
        raise InvalidData(
            f"a trial must have a name, a recipe and conditions, but one in {place / artifact.MEASUREMENTS} has not; "
            "measure the model again"
        )


def _nothing(folders: Sequence[Path]) -> InvalidData:
    where = ", ".join(map(str, folders))
    models = [str(place) for place in _places(folders, artifact.MANIFEST)]
    if models:
        some = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
        return InvalidData(
            f"models must have been measured, but {some} were not; whet measure BASELINE MODEL --task TASK"
        )
    return InvalidData(
        f"the folder must hold models that whet measured, but {where} holds none; name another, or begin with "
        "whet measure MODEL --task TASK --out FOLDER"
    )


def _only(found: Sequence[Result], wanted: Mapping[str, str]) -> list[Result]:
    chosen = list(found)
    for key, value in current_names(wanted).items():
        has = Counter(_condition(result.trial, key) for result in chosen)
        chosen = [result for result in chosen if _condition(result.trial, key) == value]
        if not chosen:
            known = ", ".join(f"{key}={one}" for one in has)
            raise InvalidParameter(f"--only must leave some trials, but got {key}={value}; there are {known}")
    return chosen


def _check_alike(results: Sequence[Result]) -> None:
    for key in ALIKE:
        names: dict[str, list[str]] = {}
        for result in results:
            own = names.setdefault(_condition(result.trial, key), [])
            if result.trial.name not in own:
                own.append(result.trial.name)
        if len(names) > 1:
            got = " and ".join(f"{key}={value} ({_some(own)})" for value, own in names.items())
            most = max(names, key=lambda value: len(names[value]))
            raise InvalidData(
                f"trials of one report must be alike in task, data and machine, but got {got}; choose one, "
                f"such as --only '{key}={most}', or measure them in one run"
            )


def _newest(results: Sequence[Result]) -> list[Result]:
    """The last trial of every model in every runtime, one with times before one without."""
    newest: dict[tuple[str | None, ...], tuple[tuple[bool, str], Result]] = {}
    for result in results:
        trial = result.trial
        key = (trial.name, trial.artifact, _condition(trial, "runtime"), _condition(trial, "precision"))
        timed = any(one.metric == TIMED for one in trial.measurements)
        age = (timed, str((trial.conditions or {}).get("measured", "")))
        if key not in newest or age >= newest[key][0]:
            newest[key] = age, result
    return [result for _, result in newest.values()]


def _told_apart(results: Sequence[Result]) -> list[Result]:
    """The same results; names that several have get that of the folder above their model, or else a number."""
    known = [result.trial.name for result in results]
    above = [result.folder.resolve().parent.name if result.folder else "elsewhere" for result in results]
    longer = [f"{name}, {place}" if known.count(name) > 1 else name for name, place in zip(known, above, strict=True)]
    unique = [
        f"{name}, {longer[:i].count(name) + 1}" if longer.count(name) > 1 else name for i, name in enumerate(longer)
    ]
    return [
        result._replace(trial=dataclasses.replace(result.trial, name=name))
        for result, name in zip(results, unique, strict=True)
    ]


def _is_baseline(trial: Trial) -> bool:
    return all(one.versus is None for one in trial.measurements)


def _speed(trial: Trial) -> float:
    timed = [one for one in trial.measurements if one.metric == TIMED]
    return next((1.0 if one.versus is None else one.versus.value for one in timed), 0.0)


def _condition(trial: Trial, key: str) -> str:
    return flat(trial.conditions or {}).get(key, _NONE)


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
