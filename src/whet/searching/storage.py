"""What a search keeps in its folder, so that it can be killed at any moment and several workers can share it.

    search.json          whose search it is, and what was measured of the original
    trials/0007.json     one structure that was tried, with all that came of it; written once, when it is finished
    models/0007          the model and its exports, as long as it is on the frontier
    best                 the best so far, always whole
    measurements.jsonl   every trial as one line
    workers              for each worker that is alive a lock, and the structure that it is trying

This is the only store of a search; `sampler` says why. Every file is whole or absent, and one of its own is written for
each structure, so that a kill at any moment leaves nothing to repair. Locks are the system's own, so that those of a
killed process are free; what it was trying is then tried again. A file `journal`, in folders of whet 0.1.0, is ignored.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from whet.errors import InvalidData, InvalidParameter, OutputExists, OutputNotWritten
from whet.evaluation.trial import Trial
from whet.models.artifact import MEASUREMENTS
from whet.searching.space import Structure
from whet.utils.files import check_output, write_text

__all__ = ["FAILED", "FINISHED", "PRUNED", "Proposal", "SearchStorage", "SearchTrial"]

FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"
"""How an attempt ended: measured, given up early by what was cheap to know, or by an error."""
SEARCH, TRIALS, MODELS, WORKERS = "search.json", "trials", "models", "workers"


class Proposal(NamedTuple):
    """A structure that a worker is to try."""

    number: int
    structure: Structure


class SearchTrial(NamedTuple):
    """One structure that was tried."""

    number: int
    structure: Structure
    recipe: Sequence[Mapping[str, Any]]
    state: str
    """FINISHED, PRUNED or FAILED."""
    message: str = ""
    """Why it was given up or failed."""
    value: float | None = None
    """What the search maximises; None where it was not measured."""
    kl: float | None = None
    """In PyTorch, on a few held-out batches."""
    speed: float | None = None
    """In PyTorch, in a short run, times the original."""
    seconds: float = 0.0
    trials: tuple[Trial, ...] = ()
    """One for each runtime and precision that was measured in full."""
    left_out: Mapping[str, str] = {}
    """Why others were not, by their names."""

    def to_json(self) -> str:
        """Return the attempt as JSON."""
        trials = [trial.to_dict() for trial in self.trials]
        entry = self._asdict() | {"structure": self.structure._asdict(), "trials": trials}
        return json.dumps(entry, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the attempt that `to_json` wrote."""
        entry = json.loads(text)
        trials = tuple(map(Trial.from_dict, entry["trials"]))
        return cls(**{**entry, "structure": Structure(**entry["structure"]), "trials": trials})


class SearchStorage:
    """The folder of one search, as one of its workers sees it."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.folder = folder
        self.worker = worker
        """This worker's name."""
        self.lock = FileLock(folder / ".lock")
        """Held while what all workers share is changed."""
        self._alive = FileLock(self._worker_lock(worker))

    @classmethod
    @contextmanager
    def opened(
        cls, folder: Path, identity: Mapping[str, Any], *, overwrite: bool, join: bool, inputs: tuple[Path, ...] = ()
    ) -> Iterator[Self]:
        """Yield the folder's ledger, new or with all that is in it already.

        Args:
            folder: made if it is not there.
            identity: what a search must have in common with the one that began the folder.
            overwrite: whether that is thrown away.
            join: whether other workers may be at work in it.
            inputs: what the folder must not hold.

        Raises:
            InvalidParameter: the folder's search is another.
            OutputExists: the folder holds something else, or another worker is at work in it.
            OutputNotWritten: the folder cannot be written.
        """
        check_output(folder, overwrite=overwrite or (folder / SEARCH).is_file(), inputs=inputs)
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                ledger = cls(folder.resolve(), uuid4().hex[:8])
                with ledger.lock:
                    ledger._begin(identity, overwrite=overwrite, join=join)
                    ledger._alive.acquire()
            except OSError as error:
                if isinstance(error, OutputExists | OutputNotWritten):
                    raise
                raise OutputNotWritten(f"{folder} must be writable, but {error}; name another") from error
            stack.callback(ledger.leave)
            yield ledger

    def _begin(self, identity: Mapping[str, Any], *, overwrite: bool, join: bool) -> None:
        others = self.others()
        if others and (overwrite or not join):
            raise OutputExists(
                f"a search must be alone in its folder, but another is at work in {self.folder}; wait for it, or give "
                "--join to help it"
            )
        if overwrite:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != ".lock":
                    path.unlink()
        for name in (TRIALS, MODELS, WORKERS):
            (self.folder / name).mkdir(exist_ok=True)
        if (self.folder / SEARCH).is_file():
            self._check(identity)
        else:
            self._write({"identity": identity, "known": {}})

    def _check(self, identity: Mapping[str, Any]) -> None:
        held, wanted = self._read()["identity"], json.loads(json.dumps(identity))
        for key in sorted({*held, *wanted}):
            if held.get(key) != wanted.get(key):
                raise InvalidParameter(
                    f"a search must go on with what it began with, but got {key}={wanted.get(key)}, and {self.folder} "
                    f"holds one of {key}={held.get(key)}, whose figures do not carry over; name another folder, or "
                    "give --overwrite to measure all of it again"
                )

    def others(self) -> set[str]:
        """Return the names of the other workers that are alive."""
        found = set()
        with self.lock:  # under which workers come to life
            for path in (self.folder / WORKERS).glob("*.lock"):
                if path.stem == self.worker:
                    continue
                try:
                    with FileLock(path, timeout=0):
                        self._proposal_file(path.stem).unlink(missing_ok=True)
                        path.unlink(missing_ok=True)
                except Timeout:
                    found.add(path.stem)
        return found

    def leave(self) -> None:
        """Be alive no more, as the others see it."""
        self.release()
        self._alive.release()
        self._worker_lock(self.worker).unlink(missing_ok=True)

    def is_last(self) -> bool:
        """Return whether no other worker is alive; where one is, this one leaves, so that one of them is the last."""
        with self.lock:
            if not self.others():
                return True
            self.leave()
            return False

    @property
    def known(self) -> dict[str, Any]:
        """What `remember` kept."""
        known: dict[str, Any] = self._read()["known"]
        return known

    def remember(self, **values: Any) -> None:
        """Keep JSON values for all workers, and for the next time."""
        with self.lock:
            held = self._read()
            self._write(held | {"known": held["known"] | values})

    def attempts(self) -> list[SearchTrial]:
        """Return what was tried to its end, by number.

        Raises:
            InvalidData: a file is none that was written here.
        """
        found = []
        for path in sorted((self.folder / TRIALS).glob("*.json")):
            try:
                found.append(SearchTrial.from_json(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise InvalidData(f"{path} must hold a trial of this search, but {error!r}; delete it") from error
        return found

    def claim(self, structure: Structure) -> Proposal:
        """Give a structure to this worker, as the others see it until it is recorded or released.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        with self.lock:
            numbers = [attempt.number for attempt in self.attempts()]
            numbers += [claimed.number for claimed in self.claimed()]
            proposal = Proposal(max(numbers, default=-1) + 1, structure)
            entry = {"number": proposal.number, "structure": structure._asdict()}
            write_text(self._proposal_file(self.worker), json.dumps(entry))
        return proposal

    def claimed(self) -> list[Proposal]:
        """Return what the workers that are alive are trying."""
        with self.lock:
            entries = [json.loads(file.read_text(encoding="utf-8")) for file in self._proposal_files()]
        return [Proposal(entry["number"], Structure(**entry["structure"])) for entry in entries]

    def release(self) -> None:
        """Let the structure that this worker claimed, if any, be tried another time."""
        with self.lock:
            self._proposal_file(self.worker).unlink(missing_ok=True)

    def record(self, attempt: SearchTrial, original: Trial) -> None:
        """Keep a finished attempt, and a line for each of its trials below the original's; the claim ends.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        with self.lock:
            write_text(self.folder / TRIALS / f"{attempt.number:04}.json", attempt.to_json())
            trials = [original, *(trial for one in self.attempts() for trial in one.trials)]
            write_text(self.folder / MEASUREMENTS, "".join(f"{trial.to_json()}\n" for trial in trials))
            self.release()

    def model(self, number: int) -> Path:
        """Return the folder of an attempt's model."""
        return self.folder / MODELS / f"{number:04}"

    def tidy(self, kept: set[int]) -> None:
        """Delete all models but those of the numbers that are given, and of what workers are trying."""
        claimed = {proposal.number for proposal in self.claimed()}
        names = {self.model(number).name for number in kept | claimed}
        for path in (self.folder / MODELS).iterdir():
            if path.name not in names and not path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)

    def _worker_lock(self, worker: str) -> Path:
        return self.folder / WORKERS / f"{worker}.lock"

    def _proposal_file(self, worker: str) -> Path:
        return self.folder / WORKERS / f"{worker}.json"

    def _proposal_files(self) -> list[Path]:
        """Those of this worker and of the others that are alive."""
        files = (self._proposal_file(worker) for worker in sorted({self.worker, *self.others()}))
        return [file for file in files if file.is_file()]

    def _read(self) -> dict[str, Any]:
        path = self.folder / SEARCH
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return {"identity": dict(held["identity"]), "known": dict(held["known"])}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InvalidData(
                f"{path} must say whose search it is, but {error!r}; give --overwrite to measure all of it again"
            ) from error

    def _write(self, content: Mapping[str, Any]) -> None:
        write_text(self.folder / SEARCH, json.dumps(content, indent=1))
