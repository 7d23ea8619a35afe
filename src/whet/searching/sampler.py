"""Which structure a search tries next: promising ones first, then what optuna's sampler suggests.

The journal is optuna's own, which several workers may append to. A structure is given to one of them, and not twice.
"""

import importlib
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidData, InvalidParameter
from whet.searching.space import Space, Structure
from whet.searching.storage import FAILED, SearchTrial

__all__ = ["Proposal", "Sampler", "require_optuna"]

STARTUP = 4
"""Finished structures from which on the sampler looks at what they gave."""
TRIES = 20
"""How often the sampler may suggest what is known already, before something new is drawn."""
WORKER = "worker"


class Proposal(NamedTuple):
    """A structure to try."""

    number: int
    structure: Structure


def require_optuna() -> Any:
    """Return the package optuna.

    Raises:
        InvalidParameter: it is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise InvalidParameter(
            "a search needs the package optuna, but it is not installed; pip install 'whet[search]'"
        ) from error


class Sampler:
    """The proposals of one worker."""

    def __init__(self, journal: Path, space: Space, *, seed: int, worker: str) -> None:
        """Open the journal, or begin one.

        Raises:
            InvalidData: the file is no journal.
        """
        self._optuna = optuna = require_optuna()
        self._space = space
        self._seed = seed
        self._worker = worker
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal
        lock = backend.JournalFileOpenLock(str(journal))
        _mend(journal, lock)
        try:
            storage = optuna.storages.JournalStorage(backend.JournalFileBackend(str(journal), lock_obj=lock))
            self._study = optuna.create_study(
                storage=storage, study_name="whet", direction="maximize", load_if_exists=True
            )
            begun = len(self._study.get_trials(deepcopy=False))
        except (ValueError, KeyError, AssertionError) as error:
            raise InvalidData(
                f"{journal} must be the journal of a search, but {error!r}; give --overwrite to measure it all again"
            ) from error
        # a sampler that began as the last one did would suggest what that one did
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + begun, n_startup_trials=STARTUP)

    def take_up(self, attempts: Sequence[SearchTrial], alive: set[str]) -> None:
        """Set right what workers left that were killed: what they finished counts, the rest is to be done again.

        Args:
            attempts: all that are finished.
            alive: names of the other workers that are at work.
        """
        finished = {attempt.number: attempt for attempt in attempts}
        for trial in self._running():
            if trial.number in finished:
                self.finish(finished[trial.number])
            elif trial.user_attrs.get(WORKER) not in {*alive, self._worker}:
                self._drop(trial.number)
                if len(trial.params) == len(Structure._fields):
                    self._study.enqueue_trial(trial.params)

    def next(self, attempts: Sequence[SearchTrial]) -> Proposal | None:
        """Return what to try next, or None if everything was tried.

        Args:
            attempts: all that are finished.
        """
        known = {one.structure: 0.0 if one.value is None else one.value for one in attempts}
        taken = known.keys() | {Structure(**trial.params) for trial in self._running()}
        promising = self._space.promising(known)
        if promising is not None and promising not in taken:
            self._study.enqueue_trial(promising._asdict(), skip_if_exists=True)
        left = [one for one in self._space.every() if one not in taken]
        for tries in range(TRIES + 1):
            if not left:
                return None
            if tries == TRIES:
                self._study.enqueue_trial(random.Random(self._seed + len(left)).choice(left)._asdict())
            trial = self._study.ask()
            trial.set_user_attr(WORKER, self._worker)
            most = self._space.most._asdict()
            levels = {name: trial.suggest_int(name, 0, level) for name, level in most.items()}
            structure = Structure(**levels)
            if structure in left:
                return Proposal(trial.number, structure)
            self._drop(trial.number)
        return None

    def finish(self, attempt: SearchTrial) -> None:
        """Tell the sampler what came of a proposal."""
        states = self._optuna.trial.TrialState
        if attempt.value is not None:
            self._study.tell(attempt.number, attempt.value, skip_if_finished=True)
        else:
            state = states.FAIL if attempt.state == FAILED else states.PRUNED
            self._study.tell(attempt.number, state=state, skip_if_finished=True)

    def give_back(self, proposal: Proposal) -> None:
        """Let what was not finished be tried another time."""
        self._drop(proposal.number)
        self._study.enqueue_trial(proposal.structure._asdict())

    def at_work(self) -> set[int]:
        """Return the numbers of what workers are trying."""
        return {trial.number for trial in self._running()}

    def _running(self) -> list[Any]:
        found: list[Any] = self._study.get_trials(states=(self._optuna.trial.TrialState.RUNNING,))
        return found

    def _drop(self, number: int) -> None:
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)


def _mend(journal: Path, lock: Any) -> None:
    """Cut off a last line that a killed process did not write to its end; the next one would be put behind it."""
    if not journal.is_file():
        return
    lock.acquire()
    try:
        with journal.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
    finally:
        lock.release()
