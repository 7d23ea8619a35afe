"""The best model of a search so far: kept whole in a folder of its own, and confirmed once on the dev split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whet.evaluation import records
from whet.evaluation.rows import BenchmarkRow
from whet.evaluation.trial import Trial
from whet.searching.baseline import Baseline
from whet.searching.costs import CONFIRMATION, LEAST_ROUNDS, confirmation_seconds
from whet.searching.goal import Goal
from whet.searching.result import BEST
from whet.searching.storage import SearchStorage
from whet.searching.targets import Target
from whet.utils.manifests import is_artifact

__all__ = ["confirm", "keep_best"]


def keep_best(storage: SearchStorage, baseline: Baseline, baseline_trial: Trial, goal: Goal) -> None:
    """Bring the folder of the best model up to date, and delete all models that are off the frontier.

    Raises:
        OutputNotWritten: the folder cannot be written; the best model before is still there.
    """
    with storage.lock:
        candidates = [candidate for trial in storage.trials() for candidate in trial.candidates]
        best = goal.winner(candidates, baseline_trial)
        number, target = _number(best), Target.of(best)
        folder = storage.folder / BEST
        if storage.shared.get("best") != [number, *target] or not is_artifact(folder):
            _save(best, storage, baseline, folder)
            storage.share(best=[number, *target])
        frontier = goal.frontier([baseline_trial, *candidates]).trials
        storage.keep_models(_numbers([*frontier, best]))


def confirm(storage: SearchStorage, baseline: Baseline, *, left: float) -> list[Trial] | None:
    """Return the baseline and the best model measured on the dev split, once for each best model.

    Empty if the best model is the baseline; None if other workers are still at work, of which the last confirms.

    Args:
        storage: of the search.
        baseline: the model that the best is compared with.
        left: seconds that there are for it; where they are few, fewer rounds are timed.
    """
    number, *target = storage.shared["best"]
    if number is None:
        return []
    key = f"{number} {' '.join(target)}"
    confirmations: dict[str, list[dict[str, Any]]] = storage.shared.get("confirmations", {})
    if key not in confirmations:
        if not storage.is_last():
            return None
        trials = _measured_on_dev(storage.folder / BEST, target, baseline, left)
        confirmations |= {key: [trial.to_dict() for trial in trials]}
        storage.share(confirmations=confirmations)
    return [Trial.from_dict(entry) for entry in confirmations[key]]


def _save(best: Trial, storage: SearchStorage, baseline: Baseline, folder: Path) -> None:
    number, target = _number(best), Target.of(best)
    if number is None:
        about = {"recipe": [], "origin": baseline.source, "seed": baseline.seed}
        records.save_model(baseline.model, baseline.tokenizer, folder, **about, overwrite=True)  # type: ignore[arg-type]
        return
    export = target if target.exported else None
    about = {"target": target._asdict()}
    records.copy_model(storage.model_folder(number), folder, export=export, about=about, trials=[best], overwrite=True)


def _measured_on_dev(folder: Path, target: Sequence[str], baseline: Baseline, left: float) -> list[Trial]:
    fitting = int(CONFIRMATION.rounds * left / confirmation_seconds(baseline))
    rounds = max(LEAST_ROUNDS, min(CONFIRMATION.rounds, fitting))
    benchmark = replace(
        CONFIRMATION, rounds=rounds, batch_size=baseline.batch_size, max_length=baseline.max_length, seed=baseline.seed
    )
    trials = benchmark.compare([BenchmarkRow(baseline.source), BenchmarkRow(folder, *target)], baseline.task)
    records.record(folder, trials[1])
    return trials


def _number(candidate: Trial) -> int | None:
    """The number of the structure that a candidate has; None for the baseline."""
    number: int | None = (candidate.conditions or {}).get("candidate")
    return number


def _numbers(candidates: Sequence[Trial]) -> set[int]:
    return {number for number in map(_number, candidates) if number is not None}
