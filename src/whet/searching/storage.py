"""The folder of a search, its only store: several workers share it, and it survives a kill at any moment.

    search.json          what the search is about, and what its workers share, such as the baseline's measurements
    trials/0007.json     the outcome of one structure, written once, when it is known
    models/0007          its model with the exports, as long as it is on the frontier
    best                 the best model so far, always whole
    measurements.jsonl   the baseline and every candidate that was measured, one a line
    workers              for each worker that is alive a lock, and the structure that it is trying

Every file is replaced as a whole, and each outcome has a file of its own, so that there is nothing to repair after a
kill, and nothing that another store could contradict: `sampler` keeps no state. Locks belong to the processes that hold
them: those of a killed worker are free, and the structure that it was trying is tried again.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from whet.errors import InvalidData, InvalidParameter, OutputExists, OutputNotWritten
from whet.evaluation.trial import Trial
from whet.models.manifest import MEASUREMENTS
from whet.searching._version_0_1 import current_search, current_trial
from whet.searching.space import Structure
from whet.utils.files import write_text
from whet.utils.outputs import check_output

__all__ = ["FAILED", "FINISHED", "PRUNED", "Proposal", "SearchStorage", "SearchTrial"]

FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"
"""States of a structure: measured, given up early because cheap measurements were enough, or ended by an error."""
SEARCH, TRIALS, MODELS, WORKERS = "search.json", "trials", "models", "workers"


class Proposal(NamedTuple):
    """A structure that a worker is to try."""

    number: int
    structure: Structure


class SearchTrial(NamedTuple):
    """The outcome of one structure."""

    number: int
    structure: Structure
    recipe: Sequence[Mapping[str, Any]]
    """The file form of the recipe that makes it."""
    state: str
    """FINISHED, PRUNED or FAILED."""
    message: str = ""
    """Why it was given up or failed."""
    value: float | None = None
    """What the search maximises; None where it was not measured."""
    proxy_kl: float | None = None
    """KL divergence from the baseline's answers in PyTorch on a few batches, in nats."""
    proxy_speedup: float | None = None
    """Speedup over the baseline in PyTorch, in a short run."""
    seconds: float = 0.0
    """Time that all of it took."""
    candidates: tuple[Trial, ...] = ()
    """The measurements of its model in each target that was measured in full."""
    left_out: Mapping[str, str] = {}
    """The reason for each target that was not, by the target's name."""

    def to_json(self) -> str:
        """Return the outcome as JSON."""
        candidates = [candidate.to_dict() for candidate in self.candidates]
        entry = self._asdict() | {"structure": self.structure._asdict(), "candidates": candidates}
        return json.dumps(entry, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the outcome that `to_json` wrote, here or in version 0.1.0."""
        entry = current_trial(json.loads(text))
        candidates = tuple(map(Trial.from_dict, entry["candidates"]))
        return cls(**{**entry, "structure": Structure(**entry["structure"]), "candidates": candidates})


class SearchStorage:
    """The folder of one search, as one of its workers sees it."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.folder = folder
        self.worker = worker
        """The name of this worker."""
        self.lock = FileLock(folder / ".lock")
        """Held while something changes that all workers share."""
        self._alive = FileLock(self._worker_lock(worker))

    @classmethod
    @contextmanager
    def opened(
        cls, folder: Path, identity: Mapping[str, Any], *, overwrite: bool, join: bool, inputs: tuple[Path, ...] = ()
    ) -> Iterator[Self]:
        """Yield the storage in a folder, new or with everything that was recorded before.

        Args:
            folder: created if it does not exist.
            identity: JSON values that must equal those of the search that began the folder.
            overwrite: whether everything in the folder is deleted first.
            join: whether other workers may be at work in it.
            inputs: paths that the folder must not contain.

        Raises:
            InvalidParameter: the folder belongs to another search.
            OutputExists: the folder holds something else, or another worker is at work in it.
            OutputNotWritten: the folder cannot be written.
        """
        check_output(folder, overwrite=overwrite or (folder / SEARCH).is_file(), inputs=inputs)
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                storage = cls(folder.resolve(), uuid4().hex[:8])
                with storage.lock:
                    storage._begin(identity, overwrite=overwrite, join=join)
                    storage._alive.acquire()
            except OSError as error:
                if isinstance(error, OutputExists | OutputNotWritten):
                    raise
                raise OutputNotWritten(f"{folder} must be writable, but {error}; name another") from error
            stack.callback(storage.leave)
            yield storage

    # workers

    def other_workers(self) -> set[str]:
        """Return the names of the other workers that are alive."""
        alive = set()
        with self.lock:  # which a worker holds while it begins
            for path in (self.folder / WORKERS).glob("*.lock"):
                if path.stem == self.worker:
                    continue
                try:
                    with FileLock(path, timeout=0):
                        self._proposal_file(path.stem).unlink(missing_ok=True)
                        path.unlink(missing_ok=True)
                except Timeout:
                    alive.add(path.stem)
        return alive

    def leave(self) -> None:
        """End this worker's part: the others see neither it nor its claim any more."""
        self._release()
        self._alive.release()
        self._worker_lock(self.worker).unlink(missing_ok=True)

    def is_last(self) -> bool:
        """Return whether no other worker is alive; otherwise leave, so that exactly one worker is the last."""
        with self.lock:
            if not self.other_workers():
                return True
            self.leave()
            return False

    # structures

    def claim(self, structure: Structure) -> Proposal:
        """Give a structure to this worker, until its outcome is recorded or the worker leaves.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        with self.lock:
            numbers = [trial.number for trial in self.trials()]
            numbers += [proposal.number for proposal in self.claimed()]
            proposal = Proposal(max(numbers, default=-1) + 1, structure)
            entry = {"number": proposal.number, "structure": structure._asdict()}
            write_text(self._proposal_file(self.worker), json.dumps(entry))
        return proposal

    def claimed(self) -> list[Proposal]:
        """Return the structures that the workers that are alive are trying."""
        with self.lock:
            files = [self._proposal_file(worker) for worker in sorted({self.worker, *self.other_workers()})]
            entries = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        return [Proposal(entry["number"], Structure(**entry["structure"])) for entry in entries]

    def trials(self) -> list[SearchTrial]:
        """Return all outcomes, by number.

        Raises:
            InvalidData: a file was not written by a search, or is damaged.
        """
        trials = []
        for path in sorted((self.folder / TRIALS).glob("*.json")):
            try:
                trials.append(SearchTrial.from_json(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise InvalidData(f"{path} must hold a trial of this search, but {error!r}; delete it") from error
        return trials

    def record(self, trial: SearchTrial, baseline: Trial) -> None:
        """Record an outcome, write all measurements below the baseline's, and end the claim.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        with self.lock:
            write_text(self.folder / TRIALS / f"{trial.number:04}.json", trial.to_json())
            measured = [baseline, *(candidate for trial in self.trials() for candidate in trial.candidates)]
            write_text(self.folder / MEASUREMENTS, "".join(f"{candidate.to_json()}\n" for candidate in measured))
            self._release()

    # what workers share

    @property
    def shared(self) -> dict[str, Any]:
        """The JSON values that all workers share."""
        shared: dict[str, Any] = self._read()["shared"]
        return shared

    def share(self, **values: Any) -> None:
        """Add JSON values to those that all workers share, now and when the search goes on later.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        with self.lock:
            search = self._read()
            self._write(search | {"shared": search["shared"] | values})

    # models

    def model_folder(self, number: int) -> Path:
        """Return the folder for the model of a structure, by the structure's number."""
        return self.folder / MODELS / f"{number:04}"

    def keep_models(self, numbers: Collection[int]) -> None:
        """Delete all models but those of these numbers, and those that workers are making."""
        kept = {*numbers, *(proposal.number for proposal in self.claimed())}
        names = {self.model_folder(number).name for number in kept}
        for path in (self.folder / MODELS).iterdir():
            if path.name not in names and not path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)

    def _begin(self, identity: Mapping[str, Any], *, overwrite: bool, join: bool) -> None:
        others = self.other_workers()
        if others and (overwrite or not join):
            raise OutputExists(
                f"a search must be alone in its folder, but another is at work in {self.folder}; wait for it, or give "
                "--join to help it"
            )
        if overwrite:
            self._clear()
        for name in (TRIALS, MODELS, WORKERS):
            (self.folder / name).mkdir(exist_ok=True)
        if (self.folder / SEARCH).is_file():
            self._check(identity)
        else:
            self._write({"identity": identity, "shared": {}})

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()

    def _check(self, identity: Mapping[str, Any]) -> None:
        recorded, wanted = self._read()["identity"], json.loads(json.dumps(identity))
        for key in sorted({*recorded, *wanted}):
            if recorded.get(key) != wanted.get(key):
                raise InvalidParameter(
                    f"a search must go on with what it began with, but got {key}={wanted.get(key)}, and {self.folder} "
                    f"holds one of {key}={recorded.get(key)}, whose figures do not carry over; name another folder, or "
                    "give --overwrite to measure all of it again"
                )

    def _release(self) -> None:
        with self.lock:
            self._proposal_file(self.worker).unlink(missing_ok=True)

    def _worker_lock(self, worker: str) -> Path:
        return self.folder / WORKERS / f"{worker}.lock"

    def _proposal_file(self, worker: str) -> Path:
        return self.folder / WORKERS / f"{worker}.json"

    def _read(self) -> dict[str, Any]:
        path = self.folder / SEARCH
        try:
            return current_search(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidData(
                f"{path} must say what the search is about, but {error!r}; give --overwrite to measure all of it again"
            ) from error

    def _write(self, content: Mapping[str, Any]) -> None:
        write_text(self.folder / SEARCH, json.dumps(content, indent=1))
