"""Collects trials from folders: the newest trial of every model, all of one task, data set and machine."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidArtifact, InvalidData, InvalidParameter, WhetError
from whet.evaluation import records
from whet.evaluation.places import TIMED_FROM
from whet.evaluation.trial import Trial, current_names
from whet.models import artifact
from whet.utils.inputs import require_folder
from whet.utils.manifests import MANIFEST, MEASUREMENTS, is_artifact

__all__ = ["SHARED_CONDITIONS", "Confirmation", "Result", "collect_results", "find_confirmations", "flat_conditions"]

SHARED_CONDITIONS = (
    "task",
    "split",
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
    TIMED_FROM,
    "positive",
    "baseline",
    "baseline_artifact",
)
"""Conditions that all trials of a report must share, because times under different conditions are not comparable."""
THROUGHPUT = "throughput"
_NONE = "none"
"""Value that is shown for a condition that a trial lacks."""
_DEV = {"split": "dev"}
"""Where a trial names no split, it was measured on the dev split."""


class Result(NamedTuple):
    """A trial and the folder of its model."""

    trial: Trial
    """The measurements."""
    folder: Path | None = None
    """The measured artifact; None if it no longer exists, or the model was not an artifact."""


class Confirmation(NamedTuple):
    """What a model that a run chose did on other examples than those that it was chosen by."""

    trial: Trial
    """The measurements, compared with the same baseline."""
    chosen: str | None
    """Name of the model among the results; None if it is not one of them."""


def collect_results(
    folders: Sequence[Path],
    *,
    only: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[Result]:
    """Return the newest trial of every model and runtime below some folders: the baseline first, then by speed.

    Args:
        folders: folders to search, with all folders inside them except hidden ones and those behind a symlink.
        only: conditions of the trials to return, by the names of `flat_conditions`.
        warn: called with a sentence for each folder inside the given ones that cannot be read; the others count.

    Raises:
        InvalidParameter: a folder does not exist, or no trial has the wanted conditions.
        InvalidArtifact: measurements right in a given folder, or all that there are, cannot be read.
        InvalidData: there are no measurements, or trials differ in the conditions of `SHARED_CONDITIONS`.
    """
    for folder in folders:
        require_folder(folder, what="what a report is of", error=InvalidParameter)
    models = _models(folders, warn)
    measured = [result for result in _all_results(folders, models, warn) if result.trial.measurements]
    if not measured:
        raise _no_measurements(folders, models.values())
    chosen = _with_conditions(measured, only or {})
    _check_comparable(chosen)
    newest = _newest(chosen)
    baselines = [result for result in newest if _is_baseline(result.trial)]
    if len(baselines) > 1:
        names = ", ".join(result.trial.name for result in baselines)
        raise InvalidData(
            f"all models must have been measured against one baseline, but got {names}; measure them in one run: "
            "whet measure BASELINE MODEL ... --task TASK"
        )
    return _with_unique_names(
        sorted(newest, key=lambda result: (not _is_baseline(result.trial), -_speed(result.trial)))
    )


def find_confirmations(folders: Sequence[Path], results: Sequence[Result]) -> list[Confirmation]:
    """Return what the models that searches keep did on the dev split, the newest trial of each.

    A search chooses by a slice of the training data, which its trials name as their `split`, and measures the best once
    on the dev split.

    Args:
        folders: the folders that the results were collected from.
        results: the results.
    """
    names = {_identity(result.trial): result.trial.name for result in results if _split(result.trial) is not None}
    found: list[Confirmation] = []
    for folder in _folders_with(MEASUREMENTS, [folder for folder in folders if names and _is_run(folder)]):
        if not is_artifact(folder):
            continue
        with suppress(InvalidArtifact):
            measured = records.trials(folder)
            on_dev = [trial for trial in measured if _split(trial) is None and not _is_baseline(trial)]
            chosen = (names.get(_identity(trial)) for trial in reversed(measured))
            if on_dev:
                found.append(Confirmation(on_dev[-1], next((name for name in chosen if name is not None), None)))
    return found


def _split(trial: Trial) -> str | None:
    return (trial.conditions or {}).get("split")


def _identity(trial: Trial) -> tuple[str | None, ...]:
    """What tells a candidate of a search from the others."""
    return (trial.artifact, *(_condition(trial, key) for key in ("candidate", "runtime", "precision", "split")))


def flat_conditions(conditions: Mapping[str, Any]) -> dict[str, str]:
    """Return conditions as text, by name; the names of nested conditions are joined, as in `versions.torch`."""
    texts: dict[str, str] = {}
    for key, value in conditions.items():
        if isinstance(value, Mapping):
            texts |= {f"{key}.{inner}": text for inner, text in flat_conditions(value).items()}
        elif isinstance(value, list | tuple):
            texts[key] = ", ".join(map(str, value))
        else:
            texts[key] = _NONE if value is None else str(value)
    return texts


def _models(folders: Sequence[Path], warn: Callable[[str], None]) -> dict[str, Path]:
    """Return the artifacts below some folders by their digests."""
    models: dict[str, Path] = {}
    for folder in reversed(_folders_with(MANIFEST, folders)):
        try:
            models[artifact.model_digest(folder)] = folder
        except InvalidArtifact as error:
            if (folder / MEASUREMENTS).is_file():  # other programs write files of this name too
                warn(str(error))
    return models


def _all_results(folders: Sequence[Path], models: Mapping[str, Path], warn: Callable[[str], None]) -> list[Result]:
    """Return every trial, in the order of each file, without duplicates.

    A folder with the trials of a whole run, such as a search, gives these, and not the trials of the models inside it.
    A model that was chosen and then measured on the dev split gives the latter alone.
    """
    results: dict[str, Result] = {}
    failures: list[WhetError] = []
    runs = [folder for folder in folders if _is_run(folder)]
    others = [folder for folder in folders if folder not in runs]
    for folder in (*runs, *_folders_with(MEASUREMENTS, others)):
        try:
            for trial in _trials(folder) if folder in runs else _of_its_best_split(_trials(folder)):
                results.setdefault(trial.to_json(), Result(trial, models.get(trial.artifact or "")))
        except (InvalidArtifact, InvalidData) as error:
            if folder in folders:
                raise
            failures.append(error)
    if failures and not results:
        raise failures[0]
    for failure in failures:
        warn(str(failure))
    return list(results.values())


def _trials(folder: Path) -> list[Trial]:
    trials = records.trials(folder)
    if any(trial.conditions is None for trial in trials):
        raise InvalidData(
            f"a trial must have conditions, but one in {folder / MEASUREMENTS} has none; measure the model again"
        )
    return trials


def _of_its_best_split(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials on the dev split, or all where there are none: those by which a model was chosen flatter it."""
    return [trial for trial in trials if _split(trial) is None] or trials


def _is_run(folder: Path) -> bool:
    return (folder / MEASUREMENTS).is_file() and not is_artifact(folder)


def _folders_with(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the folders that hold a file `name`, without drafts and scratch folders, whose names begin with a dot."""
    return [inner for folder in folders for inner in sorted(_inside(folder, name))]


def _inside(folder: Path, name: str) -> Iterator[Path]:
    """Yield the folders that hold a file `name`; those that cannot be read are left out, and no symlink is followed."""
    waiting = [folder]
    while waiting:
        inner = waiting.pop()
        with suppress(OSError):  # no right to read it, or a path that is too long
            with os.scandir(inner) as found:
                entries = [entry for entry in found if not entry.name.startswith(".")]
            waiting += [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
            if any(entry.name == name and entry.is_file() for entry in entries):
                yield inner


def _no_measurements(folders: Sequence[Path], models: Collection[Path]) -> InvalidData:
    searched = ", ".join(map(str, folders))
    if models:
        some = _listed(sorted(map(str, models)), limit=4)
        return InvalidData(
            f"models must have been measured, but {some} were not; run whet measure BASELINE MODEL --task TASK"
        )
    return InvalidData(
        f"the folder must hold models that whet measured, but {searched} holds none; give another, or begin with "
        "whet measure MODEL --task TASK --out FOLDER"
    )


def _with_conditions(results: Sequence[Result], wanted: Mapping[str, str]) -> list[Result]:
    chosen = list(results)
    for key, value in current_names(wanted).items():
        values = Counter(_condition(result.trial, key) for result in chosen)
        chosen = [result for result in chosen if _condition(result.trial, key) == value]
        if not chosen:
            known = ", ".join(f"{key}={value}" for value in values)
            raise InvalidParameter(f"--only must leave some trials, but got {key}={value}; there are {known}")
    return chosen


def _check_comparable(results: Sequence[Result]) -> None:
    for key in SHARED_CONDITIONS:
        names: dict[str, list[str]] = {}
        for result in results:
            same = names.setdefault(_condition(result.trial, key), [])
            if result.trial.name not in same:
                same.append(result.trial.name)
        if len(names) > 1:
            got = " and ".join(f"{key}={value} ({_listed(same)})" for value, same in names.items())
            most = max(names, key=lambda value: len(names[value]))
            raise InvalidData(
                f"trials of one report must be alike in task, data and machine, but got {got}; choose one, "
                f"such as --only '{key}={most}', or measure them in one run"
            )


def _newest(results: Sequence[Result]) -> list[Result]:
    """Return the newest trial of every model in every runtime; a trial with times is preferred to one without."""
    newest: dict[tuple[str | None, ...], tuple[tuple[bool, str], Result]] = {}
    for result in results:
        trial = result.trial
        key = (trial.name, trial.artifact, _condition(trial, "runtime"), _condition(trial, "precision"))
        timed = any(measurement.metric == THROUGHPUT for measurement in trial.measurements)
        age = (timed, str((trial.conditions or {}).get("measured", "")))
        if key not in newest or age >= newest[key][0]:
            newest[key] = age, result
    return [result for _, result in newest.values()]


def _with_unique_names(results: Sequence[Result]) -> list[Result]:
    """Return the results with unique names: equal names get the parent folder of their model, or else a number."""
    names = [result.trial.name for result in results]
    parents = [result.folder.resolve().parent.name if result.folder else "elsewhere" for result in results]
    longer = [
        f"{name}, {parent}" if names.count(name) > 1 else name for name, parent in zip(names, parents, strict=True)
    ]
    unique = [
        f"{name}, {longer[:i].count(name) + 1}" if longer.count(name) > 1 else name for i, name in enumerate(longer)
    ]
    return [
        result._replace(trial=dataclasses.replace(result.trial, name=name))
        for result, name in zip(results, unique, strict=True)
    ]


def _is_baseline(trial: Trial) -> bool:
    return all(measurement.versus is None for measurement in trial.measurements)


def _speed(trial: Trial) -> float:
    throughputs = [measurement for measurement in trial.measurements if measurement.metric == THROUGHPUT]
    return next((1.0 if one.versus is None else one.versus.value for one in throughputs), 0.0)


def _condition(trial: Trial, key: str) -> str:
    return flat_conditions(trial.conditions or {}).get(key, _DEV.get(key, _NONE))


def _listed(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
