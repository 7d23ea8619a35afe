"""One worker of a search: it tries structures until the time is over, then confirms the best if it is the last."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from whet.calibration.resources import Resources, prepare_resources
from whet.errors import InvalidParameter
from whet.evaluation.headline import POINTS, quality_difference
from whet.evaluation.slowness import busy_sentence
from whet.evaluation.trial import Trial
from whet.searching.baseline import Baseline
from whet.searching.costs import SAMPLE, confirmation_seconds, structure_seconds
from whet.searching.goal import Goal
from whet.searching.recipe_cache import CachedRecipes
from whet.searching.result import SearchResult, result_of
from whet.searching.sampler import next_structure
from whet.searching.space import Space
from whet.searching.stages import StagedEvaluation
from whet.searching.storage import FAILED, FINISHED, Proposal, SearchStorage, SearchTrial
from whet.searching.targets import Target
from whet.searching.winner import confirm, keep_best
from whet.utils.interruption import TimeIsOver, within
from whet.utils.precision import PYTORCH
from whet.utils.progress import ProgressBar

__all__ = ["TimeBudget", "Worker"]

RECOVERY_TIME = 0.1
"""Share of the time that one recovery may take."""
LEAST_RECOVERY = 0.05
"""Share of the training text below which there is no recovery."""
SPARE = 1.5
"""Times the time that is needed now, which is enough if the machine becomes slower until the next try."""
STEP = 4.0
"""Forward passes that take as long as a step of distillation: two models run, and one of them also backwards."""


class TimeBudget(NamedTuple):
    """The time that a search may take."""

    start: float
    """Reading of the monotonic clock when the search began."""
    seconds: float
    """Time in all."""

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        """Seconds until the time is over; negative after that."""
        return self.seconds - self.spent


@dataclass
class Worker:
    """One worker's part of a search."""

    storage: SearchStorage
    baseline: Baseline
    goal: Goal
    targets: tuple[Target, ...]
    """Where candidates run."""
    budget: TimeBudget
    report: Callable[[SearchTrial], None]
    """Called with the outcome of every structure."""
    warn: Callable[[str], None]
    """Called with a sentence on what the user should know early."""
    bar: ProgressBar
    """Shows how much of the time has passed, and what is done."""
    warned: bool = False
    """Whether the user knows that there are too few examples."""

    def run(self) -> SearchResult:
        """Search until the time is over, everything was tried, or somebody presses Ctrl-C.

        Raises:
            InvalidParameter: the time is too short for a single candidate.
            OutputNotWritten: the folder of the search cannot be written.
        """
        self._check_time()
        self._check_bar()
        self._do("timing the baseline")
        baseline_trial = self._baseline_trial()
        self._do("looking at what can become smaller")
        evaluation = self._evaluation(baseline_trial)
        keep_best(self.storage, self.baseline, baseline_trial, self.goal)
        notes: list[str] = []
        confirmation: list[Trial] | None = []
        stopped = False
        try:
            notes += self._explore(evaluation)
            self._do("measuring the best on the dev split")
            confirmation = confirm(self.storage, self.baseline, left=self.budget.left)
            if confirmation is None:
                notes.append("others are still at work: the last of them confirms the best on the dev split")
        except KeyboardInterrupt:
            stopped = True
            notes.append("stopped: the same command goes on, and confirms the best on the dev split")
        return result_of(
            self.storage.trials(),
            baseline_trial,
            self.goal,
            confirmation=confirmation or [],
            notes=notes,
            stopped=stopped,
        )

    def _explore(self, evaluation: StagedEvaluation) -> list[str]:
        """Try structures; return notes on why that ended."""
        tried = 0
        while True:
            # under one lock: what another worker finishes in between would be neither among trials nor claimed
            with self.storage.lock:
                trials = self.storage.trials()
                if trials and self._expected_seconds(trials) > self.budget.left:
                    break
                proposal = self._propose(evaluation.space, trials)
            if proposal is None:
                return ["every structure of the space was tried"]
            trial = self._tried(evaluation, proposal, trials)
            if trial is None:
                keep_best(self.storage, self.baseline, evaluation.baseline_trial, self.goal)
                return [f"the time ended within structure {proposal.number}; the same command with more time tries it"]
            self.storage.record(trial, evaluation.baseline_trial)
            keep_best(self.storage, self.baseline, evaluation.baseline_trial, self.goal)
            self.report(trial)
            self._warn_of_width(trial)
            tried += 1
        if tried == 1 and self.budget.left < 0:
            given, spent = f"{self.budget.seconds:.0f} s", f"{self.budget.spent:.0f} s"
            least = self.budget.spent + confirmation_seconds(self.baseline)
            return [
                f"the first structure alone did not fit into {given}: with loading it took {spent}; the least time is "
                f"about {least:.0f} s here"
            ]
        return []

    def _tried(
        self, evaluation: StagedEvaluation, proposal: Proposal, trials: Sequence[SearchTrial]
    ) -> SearchTrial | None:
        """The outcome of a structure; None if the time is over first, unless there would be nothing to confirm."""
        name = evaluation.space.name(proposal.structure)
        told = replace(
            evaluation,
            left=lambda: self.budget.left - confirmation_seconds(self.baseline),
            doing=lambda what: self._do(f"structure {proposal.number}, {name}: {what}"),
        )
        known = any(trial.candidates for trial in trials)
        limit = self.budget.left - confirmation_seconds(self.baseline) if known else math.inf
        try:
            trial = within(limit, lambda: told.run(proposal, self.storage.model_folder(proposal.number), trials))
        except TimeIsOver:
            trial = None
        if trial is None or (known and trial.state == FAILED and told.left() <= 0):  # (C++ makes an error of it)
            self.storage.release()
            return None
        return trial

    def _do(self, what: str) -> None:
        """Show what is done next."""
        self.bar.advance(0, note=f"search: {what}")

    def _propose(self, space: Space, trials: Sequence[SearchTrial]) -> Proposal | None:
        """The next structure, claimed for this worker; None if there is none."""
        values = {trial.structure: trial.value or 0.0 for trial in trials}
        running = [proposal.structure for proposal in self.storage.claimed()]
        structure = next_structure(space, values, running=running, seed=self.baseline.seed)
        return None if structure is None else self.storage.claim(structure)

    def _expected_seconds(self, trials: Sequence[SearchTrial]) -> float:
        """Seconds that one more structure and the confirmation take."""
        seconds = [trial.seconds for trial in trials if trial.state == FINISHED]
        return (median(seconds) if seconds else 0.0) + confirmation_seconds(self.baseline)

    def _check_time(self) -> None:
        """Refuse a time in which nothing can be tried, judged by what the baseline has taken."""
        if self.storage.trials():
            return
        exported = int(any(target.exported for target in self.targets))
        needed = self.budget.spent + structure_seconds(self.baseline, exported=exported)
        needed += confirmation_seconds(self.baseline)
        if needed > self.budget.seconds:
            raise InvalidParameter(
                f"the time must be enough for one candidate, about {math.ceil(needed)} s here, but got "
                f"{self.budget.seconds:g} s; {self._advice(needed)}"
            )

    def _advice(self, needed: float) -> str:
        """What gives a search enough time, where it needs so many seconds now."""
        ways = [f"give --time {math.ceil(SPARE * needed / 60)}m"]
        if any(target.exported for target in self.targets):
            runtimes = ", ".join(dict.fromkeys(target.runtime for target in self.targets))
            ways.append(f"--runtime {PYTORCH} instead of {runtimes}")
        threads = self.baseline.conditions["threads"]
        if threads > 1 and busy_sentence(self.baseline.conditions):
            ways.append(f"--threads 1 instead of {threads}, since others use the machine too")
        return ", or ".join(ways)

    def _check_bar(self) -> None:
        """Warn if no answers could show that the bar holds."""
        examples, least = len(self.baseline.selection.labels), self.goal.least_examples()
        if examples < least:
            self.warned = True
            self.warn(
                f"a bar of {self.goal.max_drop:g} {self.baseline.unit} is finer than {examples} examples can tell, of "
                f"which not one may change; about {least} would be needed: give more training data, or a wider bar"
            )

    def _warn_of_width(self, trial: SearchTrial) -> None:
        """Warn once if more examples might show that a candidate holds the bar."""
        for candidate in trial.candidates:
            needed = self.goal.examples_needed(candidate)
            if needed is not None and not self.warned:
                self.warned = True
                versus, examples = quality_difference(candidate), candidate.measurements[0].n
                self.warn(
                    f"a bar of {self.goal.max_drop:g} {self.baseline.unit} is finer than {examples} examples can tell: "
                    f"{candidate.name} is {versus.value * POINTS:+.1f} {self.baseline.unit} from the baseline, but "
                    f"down to {versus.low * POINTS:+.1f} cannot be ruled out; about {needed:,} examples would be needed"
                )

    def _baseline_trial(self) -> Trial:
        """The baseline's own measurements, which all workers share."""
        with self.storage.lock:
            entry = self.storage.shared.get("baseline")
        if entry is None:
            entry = self.baseline.trial().to_dict()
            self.storage.share(baseline=entry)
        return Trial.from_dict(entry)

    def _evaluation(self, baseline_trial: Trial) -> StagedEvaluation:
        model, share = self.baseline.model, self._recovery_share()
        resources = self._resources(share)
        space = Space.of(model, resources, recovery=share, bytes_count=self.goal.bytes_count)
        recipes = CachedRecipes(model, resources)
        return StagedEvaluation(self.baseline, baseline_trial, self.goal, space, recipes, self.targets)

    def _resources(self, recovery: float) -> Resources:
        baseline, needs = self.baseline, {"calibration"}
        if self.goal.bytes_count:
            needs |= {"train"}
        if recovery:
            needs |= {"train", "teacher"}
        return prepare_resources(
            baseline.model, baseline.tokenizer, baseline.task, SAMPLE, seed=baseline.seed, device="cpu",
            needs=frozenset(needs),
        )  # fmt: skip

    def _recovery_share(self) -> float:
        """The share of the training text that there is time for; all workers share what the first one found."""
        share: float | None = self.storage.shared.get("recovery_share")
        if share is None:
            examples = RECOVERY_TIME * self.budget.seconds / (STEP * self.baseline.seconds)
            share = min(1.0, round(examples / len(self.baseline.task.splits.train), 2))
            share = share if share >= LEAST_RECOVERY else 0.0
            self.storage.share(recovery_share=share)
        return share
