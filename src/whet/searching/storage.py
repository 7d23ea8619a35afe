"""The folder of a search, its only store: several workers share it, and it survives a kill at any moment.

    search.json          what the search is about, and what its workers share, such as the baseline's measurements
    trials/0007.json     the outcome of one structure, written once, when it is known
    models/0007          its model with the exports, as long as it is on the frontier
    best                 the best model so far, always whole
    measurements.jsonl   the baseline and every candidate that was measured, one a line
    workers              for each worker that is alive a lock, and the structure that it is trying

Every file is replaced as a whole, and each outcome has a file of its own, so that there is nothing to repair after a
kill, and nothing that another store could contradict: `sampler` keeps no state. Locks belong to the processes that hold
them: those of a killed worker are free, and the structure that it was trying is tried again. `search.json` is the first
file to come and the last to go, since it tells that the folder is a search's. A search that ends before anything is
known leaves nothing.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self
from uuid import uuid4

from annotated_types import Interval
from filelock import FileLock, Timeout
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from whet.errors import InvalidData, InvalidParameter, OutputExists, WhetError
from whet.evaluation.trial import Trial
from whet.searching._version_0_1 import current_search, current_trial
from whet.searching.space import Structure
from whet.utils.files import check_path, not_written, remove, write_text
from whet.utils.inputs import read_text
from whet.utils.manifests import MEASUREMENTS
from whet.utils.outputs import adding_to, check_output
from whet.utils.schema import from_json, from_values

__all__ = ["FAILED", "FINISHED", "PRUNED", "Proposal", "SearchStorage", "SearchTrial"]

FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"
"""States of a structure: measured, given up early because cheap measurements were enough, or ended by an error."""
SEARCH, TRIALS, MODELS, WORKERS = "search.json", "trials", "models", "workers"
_DELETE = "delete it, and its structure is tried again"
_LARGEST = 2**26
"""Bytes that a file of a search has at most."""


def _trial(entry: Mapping[str, Any]) -> Trial:
    return Trial.from_dict(entry)


_ReadTrial = Annotated[Trial, BeforeValidator(_trial), PlainSerializer(Trial.to_dict)]
"""A trial that is JSON values in the file."""


class _Shared(BaseModel):
    """What the workers of a search share."""

    model_config = ConfigDict(extra="ignore")

    baseline: _ReadTrial | None = None
    recovery_share: Annotated[float, Interval(ge=0, le=1)] | None = None
    best: tuple[int | None, str, str] | None = None
    """The number of the best structure, None for the baseline, and its runtime and precision."""
    confirmations: dict[str, list[_ReadTrial]] = {}
    """The baseline and a best model on the dev split, by that model's number and target."""


class _SearchFile(BaseModel):
    """The content of search.json."""

    identity: dict[str, Any]
    shared: _Shared


class Proposal(NamedTuple):
    """A structure that a worker is to try."""

    number: int
    structure: Structure


class SearchTrial(NamedTuple):
    """The outcome of one structure."""

    number: Annotated[int, Interval(ge=0)]
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
    candidates: tuple[_ReadTrial, ...] = ()
    """The measurements of its model in each target that was measured in full."""
    left_out: Mapping[str, str] = {}
    """The reason for each target that was not, by the target's name."""

    def to_json(self) -> str:
        """Return the outcome as JSON."""
        candidates = [candidate.to_dict() for candidate in self.candidates]
        entry = self._asdict() | {"structure": self.structure._asdict(), "candidates": candidates}
        return json.dumps(entry, indent=1)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the outcome that `to_json` wrote into a file, here or in version 0.1.0.

        Raises:
            InvalidData: a search did not write it, or it is damaged.
        """
        entry = _read_file(path, current_trial, _DELETE)
        return from_values(cls, entry, what=str(path), error=InvalidData, remedy=_DELETE)


def _read_file(path: Path, current: Callable[[Mapping[str, Any]], dict[str, Any]], remedy: str) -> dict[str, Any]:
    """Return the JSON object of a file under today's names."""
    text = read_text(path, what="the search's file", error=InvalidData, largest=_LARGEST)
    entry = from_json(dict[str, Any], text, what=str(path), error=InvalidData, remedy=remedy)
    try:
        return current(entry)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidData(f"{path} must be as whet wrote it, but got {error!r}; {remedy}") from error


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
        check_path(folder)
        check_output(folder, overwrite=overwrite or (folder / SEARCH).is_file(), inputs=inputs)
        with ExitStack() as stack:
            cls._keep_others_out(folder, stack, join=join)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                storage = cls(folder.resolve(), uuid4().hex[:8])
                stack.callback(storage.leave)
                with storage.lock:
                    storage._begin(identity, overwrite=overwrite, join=join)
                    storage._alive.acquire()
            except OSError as error:
                raise error if isinstance(error, WhetError) else not_written(folder, error) from error
            yield storage

    @staticmethod
    def _keep_others_out(folder: Path, stack: ExitStack, *, join: bool) -> None:
        """Hold the output folder, so that no other verb replaces it; who joins a search leaves that to the other."""
        try:
            stack.enter_context(adding_to(folder))
        except OutputExists as error:
            if not join:
                raise OutputExists(
                    f"a search must be alone in its folder, but another is at work in {folder}; wait for it, or give "
                    "--join to help it"
                ) from error

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
        with suppress(OSError), self.lock:
            self.release()
            self._alive.release()
            self._worker_lock(self.worker).unlink(missing_ok=True)
            if not self.other_workers():
                self._remove_if_nothing_is_known()
                # removed while it is held: whoever waits for it notices, and makes a new one
                remove(Path(self.lock.lock_file))
        with suppress(OSError):
            self.folder.rmdir()  # where nothing is left in it

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
            texts = [(file, file.read_bytes()) for file in files if file.is_file()]
        return [
            from_json(Proposal, text, what=str(file), error=InvalidData, remedy="delete it") for file, text in texts
        ]

    def trials(self) -> list[SearchTrial]:
        """Return all outcomes, by number.

        Raises:
            InvalidData: a file was not written by a search, or is damaged.
        """
        return [SearchTrial.read(path) for path in sorted((self.folder / TRIALS).glob("*.json"))]

    def record(self, trial: SearchTrial, baseline: Trial) -> None:
        """Record an outcome, write all measurements below the baseline's, and end the claim.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        with self.lock:
            write_text(self.folder / TRIALS / f"{trial.number:04}.json", trial.to_json())
            measured = [baseline, *(candidate for trial in self.trials() for candidate in trial.candidates)]
            write_text(self.folder / MEASUREMENTS, "".join(f"{candidate.to_json()}\n" for candidate in measured))
            self.release()

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
        if (self.folder / SEARCH).is_file() and self._knows_something():
            self._check(identity)
        else:
            self._write({"identity": identity, "shared": {}})
        for name in (TRIALS, MODELS, WORKERS):
            (self.folder / name).mkdir(exist_ok=True)
        if not others:
            self._sweep()

    def _sweep(self) -> None:
        """Remove what killed workers left half-written."""
        for folder in (self.folder, *(self.folder / name for name in (TRIALS, MODELS, WORKERS))):
            remove(*folder.glob(".*.partial"), *folder.glob(".*.lock"))

    def _knows_something(self) -> bool:
        return any((self.folder / TRIALS).glob("*.json")) or bool(self._read()["shared"])

    def _remove_if_nothing_is_known(self) -> None:
        with suppress(InvalidData):
            if (self.folder / SEARCH).is_file() and not self._knows_something():
                self._clear()
                remove(self.folder / SEARCH)

    def _clear(self) -> None:
        """Remove everything but the lock and an empty `search.json`."""
        self._write({"identity": {}, "shared": {}})
        remove(*(path for path in self.folder.iterdir() if path.name not in (".lock", SEARCH)))

    def _check(self, identity: Mapping[str, Any]) -> None:
        recorded, wanted = self._read()["identity"], json.loads(json.dumps(identity))
        for key in sorted({*recorded, *wanted}):
            if recorded.get(key) != wanted.get(key):
                raise InvalidParameter(
                    f"a search must go on with what it began with, but got {key}={wanted.get(key)}, and {self.folder} "
                    f"holds one of {key}={recorded.get(key)}, whose figures do not carry over; name another folder, or "
                    "give --overwrite to measure all of it again"
                )

    def release(self) -> None:
        """Give the structure that this worker is trying back, untried."""
        with self.lock:
            self._proposal_file(self.worker).unlink(missing_ok=True)

    def _worker_lock(self, worker: str) -> Path:
        return self.folder / WORKERS / f"{worker}.lock"

    def _proposal_file(self, worker: str) -> Path:
        return self.folder / WORKERS / f"{worker}.json"

    def _read(self) -> dict[str, Any]:
        path = self.folder / SEARCH
        content = _read_file(path, current_search, "give --overwrite to measure all of it again")
        file = from_values(
            _SearchFile,
            content,
            what=str(path),
            error=InvalidData,
            remedy="give --overwrite to measure all of it again",
        )
        return file.model_dump(mode="json", exclude_unset=True)

    def _write(self, content: Mapping[str, Any]) -> None:
        write_text(self.folder / SEARCH, json.dumps(content, indent=1))
