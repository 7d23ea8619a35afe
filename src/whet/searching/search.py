"""Search for the fastest or smallest model inside a bar of quality, within a time.

Structures are tried one after the other, each in every runtime and number format (see `ladder`); what comes next says
`sampler`. After each, what is known lies in the folder (see `ledger`), with the best so far, so that a search may end
at any moment and go on later. In the end the winner is measured once on the dev split, which no choice has seen.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from whet.calibration.resources import Calibration, prepare_resources
from whet.errors import InvalidParameter
from whet.evaluation import records
from whet.evaluation.benchmark import Benchmark, BenchmarkRow
from whet.evaluation.frontier import Frontier
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.models.load import weight_files
from whet.searching.baseline import Baseline
from whet.searching.goal import POINTS, Goal, difference
from whet.searching.recipe_cache import CachedRecipes
from whet.searching.sampler import next_structure
from whet.searching.space import Space
from whet.searching.stages import StagedEvaluation
from whet.searching.storage import FINISHED, Proposal, SearchStorage, SearchTrial
from whet.searching.targets import Target, targets
from whet.tasks.base import Task
from whet.tasks.splits import ResplitTask, with_selection_split
from whet.utils.distributed import process_count
from whet.utils.files import digest
from whet.utils.hardware import current_machine

__all__ = ["BEST", "SearchResult", "search"]

CALIBRATION = Calibration()
RECOVERY_TIME = 0.1
"""Share of the time that one recovery may take."""
LEAST_RECOVERY = 0.05
"""Share of the training text below which there is none."""
STEP = 4.0
"""A step of distillation takes as long as so many forward passes: two models, and one of them back."""
CONFIRMATION = Benchmark(singles=20, timed=96, metrics=("fidelity", "latency", "size"))
"""How the winner is measured on the dev split."""
BEST = "best"
CONVERSION = 20.0
"""Seconds that it takes to bring a model to another runtime, before that has been measured."""


class SearchResult(NamedTuple):
    """What a search found."""

    best: Trial
    """The best that is accepted, or what is nearest to it; its model is in the folder `best`."""
    accepted: bool
    """Whether it holds the bar, is small enough, and better than the original."""
    original: Trial
    """The original's own measurements."""
    trials: list[Trial]
    """All that was measured, on the selection slice."""
    frontier: Frontier
    """Of the original and these."""
    attempts: list[SearchTrial]
    """All structures that were tried, with those that were given up or failed."""
    confirmation: list[Trial]
    """The original and the best on the dev split; empty if the search was stopped before, or others go on with it."""
    notes: list[str]
    """What there is to be said of it."""


def search(
    model: str | Path,
    task: Task,
    out: str | Path,
    *,
    goal: Goal | None = None,
    seconds: float = 1800,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batch_size: int = 32,
    max_length: int = 128,
    seed: int = 0,
    join: bool = False,
    overwrite: bool = False,
    report: Callable[[SearchTrial], None] = lambda attempt: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> SearchResult:
    """Search for the best model above a bar of quality; what was found so far is always in `out`.

    The same call again goes on where the last one ended, or was killed.

    Args:
        model: folder or hub name of a fine-tuned model.
        task: its training data say what is good, its dev data confirm the winner.
        out: folder of the search; the winner is in its folder `best`.
        goal: the bar, and what counts above it.
        seconds: that the search may take, loading included.
        runtimes: where candidates run, such as pytorch; all that are installed, if None.
        precisions: of the other runtimes; fp32, int8 and bf16, as far as they can be had here, if None.
        batch_size: examples of the batches that are timed; 1 for single sentences.
        max_length: longer inputs are cut, in tokens.
        seed: of every random choice.
        join: whether other workers may be at work in the same folder.
        overwrite: whether what is in the folder is thrown away.
        report: called with every structure that was tried.
        warn: called with what should be known early.

    Raises:
        WhetError: anything wrong with the model, the data, the parameters or the place, before any work; a full disk.
    """
    clock = _Clock(time.monotonic(), seconds)
    chosen, wanted = goal or Goal(), targets(runtimes, precisions)
    own = _checked(model, task, seconds=seconds, batch_size=batch_size, max_length=max_length)
    identity = {
        "model_sha256": _weights_digest(model),
        "task": task.name,
        "data_sha256": [part.digest() for part in own.splits],
        "goal": [chosen.max_drop, chosen.max_size, chosen.best],
        "runtimes": [str(place) for place in wanted],
        "batch_size": batch_size,
        "max_length": max_length,
        "seed": seed,
        "machine": _times_hold_for(),
        "versions": artifact.versions(),
    }
    with SearchStorage.opened(Path(out), identity, overwrite=overwrite, join=join, inputs=(Path(model),)) as ledger:
        original = Baseline.of(model, own, max_length=max_length, batch_size=batch_size, seed=seed)
        return _Search(ledger, original, chosen, wanted, clock, report, warn).run()


class _Clock(NamedTuple):
    """How much of the time has gone."""

    begun: float
    seconds: float

    def gone(self) -> float:
        return time.monotonic() - self.begun

    def left(self) -> float:
        return self.seconds - self.gone()


@dataclass
class _Search:
    """One worker's part of a search."""

    ledger: SearchStorage
    original: Baseline
    goal: Goal
    targets: tuple[Target, ...]
    clock: _Clock
    report: Callable[[SearchTrial], None]
    warn: Callable[[str], None]
    warned: bool = False

    def run(self) -> SearchResult:
        """Explore until the time has gone, everything was tried, or somebody presses Ctrl-C."""
        self._check_time()
        self._check_bar()
        self.baseline = self._measured_original()
        ladder = self._ladder()
        self._keep_best()
        notes: list[str] = []
        try:
            notes += self._explored(ladder)
            confirmation = self._confirmed(notes)
        except KeyboardInterrupt:
            confirmation = []
            notes.append("stopped: the same command goes on, and confirms the best on the dev split")
        return self._found(confirmation, notes)

    def _explored(self, ladder: StagedEvaluation) -> list[str]:
        """Try structures; return what there is to be said of the end."""
        tried = 0
        while True:
            # (what another worker finishes in between would be in neither)
            with self.ledger.lock:
                attempts = self.ledger.attempts()
                if attempts and self._expected(attempts) > self.clock.left():
                    break
                proposal = self._proposal(ladder.space, attempts)
            if proposal is None:
                return ["every structure of the space was tried"]
            try:
                attempt = ladder.climb(proposal, self.ledger.model(proposal.number), attempts)
                self.ledger.record(attempt, self.baseline)
            finally:
                self.ledger.release()
            self._keep_best()
            self.report(attempt)
            self._tell_width(attempt)
            tried += 1
        if tried == 1 and self.clock.left() < 0:
            took = f"{self.clock.gone():.0f} s"
            return [
                f"the first structure alone did not fit into {self.clock.seconds:.0f} s: with loading it took {took}"
            ]
        return []

    def _proposal(self, space: Space, attempts: Sequence[SearchTrial]) -> Proposal | None:
        """The next structure, claimed for this worker; None if there is none."""
        values = {attempt.structure: 0.0 if attempt.value is None else attempt.value for attempt in attempts}
        running = [proposal.structure for proposal in self.ledger.claimed()]
        structure = next_structure(space, values, running=running, seed=self.original.seed)
        return None if structure is None else self.ledger.claim(structure)

    def _expected(self, attempts: Sequence[SearchTrial]) -> float:
        """Seconds of one more structure, and of the confirmation."""
        known = [one.seconds for one in attempts if one.state == FINISHED]
        return (median(known) if known else 0.0) + self._confirmation_seconds()

    def _confirmation_seconds(self) -> float:
        # (a single sentence takes a few times as long as one of a batch)
        timed = CONFIRMATION.rounds * (CONFIRMATION.timed + 4 * CONFIRMATION.singles)
        return 2 * self.original.seconds * (len(self.original.task.splits.dev) + timed)

    def _check_time(self) -> None:
        """Refuse a time in which nothing can be tried, by what the original has taken."""
        if self.ledger.attempts():
            return
        passes = 4 * CALIBRATION.examples + 2 * len(self.original.logits)
        converted = CONVERSION * any(target.exported for target in self.targets)
        needed = self.clock.gone() + passes * self.original.seconds + converted + self._confirmation_seconds()
        if needed > self.clock.seconds:
            raise InvalidParameter(
                f"the time must be enough for one candidate, about {needed:.0f} s here, but got "
                f"{self.clock.seconds:g} s; give more"
            )

    def _check_bar(self) -> None:
        """Say where no answer could show that the bar holds."""
        known, least = len(self.original.logits), self.goal.least_examples()
        if known < least:
            self.warned = True
            self.warn(
                f"a bar of {self.goal.max_drop:g} points is finer than {known} examples can tell, of which not one may "
                f"change; about {least} would be needed: give more training data, or a wider bar"
            )

    def _tell_width(self, attempt: SearchTrial) -> None:
        """Say once that more examples might show what these cannot."""
        for trial in attempt.trials:
            needed = self.goal.examples_needed(trial)
            if needed is not None and not self.warned:
                self.warned = True
                versus, known = difference(trial), trial.measurements[0].n
                self.warn(
                    f"a bar of {self.goal.max_drop:g} points is finer than {known} examples can tell: {trial.name} "
                    f"is {versus.value * POINTS:+.1f} points from the original, but down to {versus.low * POINTS:+.1f} "
                    f"cannot be ruled out; about {needed:,} examples would be needed"
                )

    def _measured_original(self) -> Trial:
        """The original's measurements, which all workers share."""
        with self.ledger.lock:
            known = self.ledger.known.get("original")
        if known is None:
            known = self.original.measured().to_dict()
            self.ledger.remember(original=known)
        return Trial.from_dict(known)

    def _ladder(self) -> StagedEvaluation:
        original = self.original
        needs, share = {"calibration"}, self._recovery()
        if self.goal.bytes_count:
            needs |= {"train"}
        if share:
            needs |= {"train", "teacher"}
        resources = prepare_resources(
            original.model, original.tokenizer, original.task, CALIBRATION, seed=original.seed, device="cpu",
            needs=frozenset(needs),
        )  # fmt: skip
        space = Space.of(original.model, resources, recovery=share, bytes_count=self.goal.bytes_count)
        return StagedEvaluation(
            original, self.baseline, self.goal, space, CachedRecipes(original.model, resources), self.targets
        )

    def _recovery(self) -> float:
        """The share of the training text that there is time for; what the first call found holds for all."""
        known: float | None = self.ledger.known.get("recovery")
        if known is None:
            examples = RECOVERY_TIME * self.clock.seconds / (STEP * self.original.seconds)
            share = min(1.0, round(examples / len(self.original.task.splits.train), 2))
            known = share if share >= LEAST_RECOVERY else 0.0
            self.ledger.remember(recovery=known)
        return known

    def _keep_best(self) -> None:
        """Bring `best` up to date, and delete models that nobody will ask for."""
        with self.ledger.lock:
            trials = [trial for one in self.ledger.attempts() for trial in one.trials]
            best = self.goal.winner(trials, self.baseline)
            number, place = _candidate(best), Target.of(best)
            folder = self.ledger.folder / BEST
            if self.ledger.known.get("best") != [number, *place] or not artifact.is_artifact(folder):
                self._save_best(best, number, place, folder)
                self.ledger.remember(best=[number, *place])
            kept = {_candidate(trial) for trial in self.goal.frontier([self.baseline, *trials]).trials} | {number}
            self.ledger.tidy({one for one in kept if one is not None})

    def _save_best(self, best: Trial, number: int | None, place: Target, folder: Path) -> None:
        original = self.original
        if number is None:
            about = {"recipe": [], "origin": original.source, "seed": original.seed}
            records.save(original.model, original.tokenizer, folder, **about, overwrite=True)  # type: ignore[arg-type]
            return
        export = place if place.exported else None
        about = {"target": place._asdict()}
        records.copy(self.ledger.model(number), folder, export=export, about=about, trials=[best], overwrite=True)

    def _confirmed(self, notes: list[str]) -> list[Trial]:
        """The original and the best on the dev split; measured once for each best."""
        number, *place = self.ledger.known["best"]
        if number is None:
            return []
        key = f"{number} {' '.join(place)}"
        confirmed: dict[str, list[dict[str, Any]]] = self.ledger.known.get("confirmed", {})
        if key not in confirmed:
            if not self.ledger.is_last():
                notes.append("others are still at work: the last of them confirms the best on the dev split")
                return []
            best = self.ledger.folder / BEST
            original = self.original
            benchmark = replace(
                CONFIRMATION, batch_size=original.batch_size, max_length=original.length, seed=original.seed
            )
            rows = [BenchmarkRow(original.source), BenchmarkRow(best, *place)]
            trials = benchmark.compare(rows, original.task)
            records.record(best, trials[1])
            confirmed |= {key: [trial.to_dict() for trial in trials]}
            self.ledger.remember(confirmed=confirmed)
        return [Trial.from_dict(row) for row in confirmed[key]]

    def _found(self, confirmation: list[Trial], notes: list[str]) -> SearchResult:
        attempts = self.ledger.attempts()
        trials = [trial for one in attempts for trial in one.trials]
        best = self.goal.winner(trials, self.baseline)
        accepted = bool(trials) and self.goal.accepts(best, self.baseline)
        if not trials:
            notes.append(f"every candidate failed or was given up, and {BEST} is the original")
        if confirmation and (lost := -difference(confirmation[1]).value) >= -self.goal.bar:
            notes.append(
                f"on dev the best loses {lost * POINTS:.1f} points, and the bar is {self.goal.max_drop:g}: it does "
                "better on the examples that it was chosen by; search with a narrower bar, or take another of the "
                "frontier"
            )
        frontier = self.goal.frontier([self.baseline, *trials])
        return SearchResult(best, accepted, self.baseline, trials, frontier, attempts, confirmation, notes)


def _candidate(trial: Trial) -> int | None:
    """The attempt that a trial is of; None for the original."""
    number: int | None = (trial.conditions or {}).get("candidate")
    return number


def _checked(model: str | Path, task: Task, *, seconds: float, batch_size: int, max_length: int) -> ResplitTask:
    """The task as the search splits it, once everything that is wrong without any work was refused."""
    for name, value, least in (("batch_size", batch_size, 1), ("max_length", max_length, 2)):
        if value < least:
            raise InvalidParameter(f"{least} <= {name} must hold, but got {name}={value}; give more")
    if not 0 < seconds < float("inf"):
        raise InvalidParameter(f"0 < time must hold, but got time={seconds:g} s; give some, such as 30m")
    if process_count() > 1:
        raise InvalidParameter(f"this must run in one process, but got {process_count()}; leave accelerate launch out")
    return with_selection_split(task)


def _weights_digest(model: str | Path) -> str:
    """The digest of all files that the model's logits depend on."""
    if artifact.is_artifact(model):
        return artifact.model_digest(Path(model))
    return digest(bytes.fromhex(digest(path)) for path in weight_files(model))


def _times_hold_for() -> dict[str, Any]:
    """The machine, as far as times depend on it."""
    known = current_machine().to_dict()
    return {name: known[name] for name in ("cpu", "cores", "threads", "instruction_sets", "omp_wait_policy")}
