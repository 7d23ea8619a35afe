"""What a structure goes through in a search: cheap looks first, each of which may end it, then full measurements.

1. Proxies, in PyTorch: KL and the metric on a few held-out batches, and a short run against the clock.
2. Short measurements of its exports: the same, in every runtime and precision that is still in play.
3. Full ones, the fastest first: the metric on the whole selection slice, and longer runs of those that hold the bar.
   Where time alone counts, what is clearly slower than one of these that holds the bar is not looked at.

A structure or an export ends where even the upper end of its interval is below the bar, or where something that was
measured before is clearly faster and clearly nearer to the original. All times are taken in turn with the original in
PyTorch, alone on the machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from whet.errors import InvalidParameter, OutputNotWritten
from whet.evaluation import records
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.runtimes.base import exporter_named, runtime_named
from whet.runtimes.export import export_to
from whet.searching.baseline import FULL_ROUNDS, SHORT_ROUNDS, Baseline, ProxyScore
from whet.searching.goal import Goal
from whet.searching.recipe_cache import CachedRecipes
from whet.searching.space import Space, Structure
from whet.searching.storage import FAILED, FINISHED, PRUNED, Proposal, SearchTrial
from whet.searching.targets import Target

__all__ = ["StagedEvaluation"]

T = TypeVar("T")

CLEARLY = 1.1
"""What is faster, or nearer, by this factor is so clearly, also in short runs and on few examples."""
SAME = 1e-4
"""A mean KL below which answers are those of the original."""
BEATEN = "beaten by another"
ENOUGH = 2
"""Structures that must have shown a target to be of no use before it is left out."""


class _Known(NamedTuple):
    """How far from the original something was, and how fast."""

    kl: float
    speed: float


@dataclass(frozen=True)
class StagedEvaluation:
    """What all structures of a search are measured against."""

    original: Baseline
    baseline: Trial
    """The original's own measurements."""
    goal: Goal
    space: Space
    steps: CachedRecipes
    targets: tuple[Target, ...]
    """Where candidates run."""

    def climb(self, proposal: Proposal, folder: Path, past: Sequence[SearchTrial]) -> SearchTrial:
        """Return what came of a structure, whose model and exports are left in `folder` if it came so far.

        What fails in it is told in the attempt, and not raised.

        Args:
            proposal: the structure.
            folder: for its model.
            past: all attempts that are finished.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        begun = time.perf_counter()
        recipe = self.space.recipe(proposal.structure, self._timed(past))
        attempt = SearchTrial(*proposal, recipe=recipe.to_list(), state=FINISHED)
        try:
            attempt = self._climbed(attempt, recipe, folder, past)
        except OutputNotWritten:
            raise
        except InvalidParameter as error:  # such as a speed that no structure has here
            attempt = attempt._replace(state=PRUNED, message=_sentence(error))
        except Exception as error:
            attempt = attempt._replace(state=FAILED, message=_sentence(error))
        return attempt._replace(seconds=time.perf_counter() - begun)

    def _timed(self, past: Sequence[SearchTrial]) -> Target | None:
        """Where time counts: where the whole model was best, once that is known; None where bytes alone do."""
        if self.goal.best == "size":
            return None
        whole = [trial for attempt in past if attempt.structure == Structure() for trial in attempt.trials]
        return Target.of(self.goal.winner(whole, self.baseline)) if whole else self.targets[0]

    def _climbed(self, attempt: SearchTrial, recipe: Recipe, folder: Path, past: Sequence[SearchTrial]) -> SearchTrial:
        original = self.original
        model = self.steps.apply(recipe)
        look = original.look(model)
        [speed] = original.speedups([model], rounds=SHORT_ROUNDS)
        attempt = attempt._replace(kl=look.kl, speed=speed.value)
        known = [_Known(one.kl, one.speed) for one in past if one.kl is not None and one.speed is not None]
        if reason := self._hopeless(look, speed, known):
            return attempt._replace(state=PRUNED, message=reason)
        about = {"recipe": recipe.to_list(), "origin": original.source, "seed": original.seed}
        records.save(model, original.tokenizer, folder, **about, overwrite=True)  # type: ignore[arg-type]
        fate = _Outcomes({}, {})
        self._load(fate, model, folder, past)
        speeds = self._thin(fate, past)
        trials = self._measure(fate, attempt, folder, speeds)
        if not trials:
            failed = any(reason.startswith(FAILED) for reason in fate.left_out.values())
            why = "; ".join(f"{target}: {reason}" for target, reason in fate.left_out.items())
            return attempt._replace(state=FAILED if failed else PRUNED, message=why, left_out=fate.left_out)
        value = max(self.goal.value(trial, self.baseline) for trial in trials)
        return attempt._replace(trials=tuple(trials), value=value, left_out=fate.left_out)

    def _hopeless(self, look: ProxyScore, speed: Comparison, known: Sequence[_Known]) -> str:
        """Why something need not be looked at more closely; empty if it must."""
        if look.versus.high <= self.goal.bar:
            return f"below the bar: {look.versus.value:+.3f}, at most {look.versus.high:+.3f}, on a few batches"
        if self.goal.bytes_count:
            return ""  # what is slower and further off may be smaller
        for other in known:
            if other.kl <= max(look.kl / CLEARLY, SAME) and other.speed >= speed.value * CLEARLY:
                return (
                    f"{BEATEN}, {other.speed:.2f} times as fast as the original at KL {other.kl:.2g}: "
                    f"{speed.value:.2f} at {look.kl:.2g}"
                )
        return ""

    def _load(self, fate: "_Outcomes", model: nn.Module, folder: Path, past: Sequence[SearchTrial]) -> None:
        """Bring the model to every target that is still in play."""
        for target in self.targets:
            if self._is_out(target, past):
                fate.left_out[str(target)] = f"{BEATEN} for every structure before"
        targets = [target for target in self.targets if str(target) not in fate.left_out]
        self._export(fate, folder, [target for target in targets if target.exported])
        threads = torch.get_num_threads()
        for target in targets:
            if str(target) not in fate.left_out:
                runtime = runtime_named(target.runtime)
                load = partial(runtime.load, model, folder, precision=target.precision, threads=threads)
                if (loaded := fate.tried(target, load)) is not None:
                    fate.runners[target] = loaded

    def _export(self, fate: "_Outcomes", folder: Path, targets: Sequence[Target]) -> None:
        if not targets:
            return
        try:
            export_to(
                folder,
                [(exporter_named(target.runtime), target.precision) for target in targets],
                task=self.original.export_task,
                seed=self.original.seed,
                threads=torch.get_num_threads(),
                failed=lambda runtime, precision, error: fate.fail(Target(runtime, precision), error),
            )
        except OutputNotWritten:
            raise
        except Exception as error:  # of the model in ONNX, which all of them are made from
            for target in targets:
                fate.fail(target, error)

    def _is_out(self, target: Target, past: Sequence[SearchTrial]) -> bool:
        """Whether a target failed or was clearly worse than another for every structure, and for several."""
        verdicts = []
        for attempt in past:
            reason = attempt.left_out.get(str(target), "")
            found = {Target.of(trial): self.goal.score(trial, self.baseline) for trial in attempt.trials}
            good = [found[Target.of(trial)] for trial in attempt.trials if self.goal.holds(trial)]
            if reason:
                verdicts += [True] * reason.startswith((BEATEN, FAILED))
            elif target in found and good:
                verdicts.append(max(good) >= CLEARLY * found[target])
        return len(verdicts) >= ENOUGH and all(verdicts)

    def _thin(self, fate: "_Outcomes", past: Sequence[SearchTrial]) -> dict[Target, float]:
        """Take away what short measurements show to be hopeless; return how fast the others seem to be."""
        looks = {target: fate.tried(target, lambda: self.original.look(runner)) for target, runner in fate.each()}  # noqa: B023
        speeds = self._speedups(fate, list(fate.runners), SHORT_ROUNDS)
        known = [_known(trial) for attempt in past for trial in attempt.trials]
        for target, speed in speeds.items():
            if (look := looks[target]) is not None:
                others = [_Known(one.kl, speeds[by].value) for by, one in looks.items() if one and by in speeds]
                if reason := self._hopeless(look, speed, [*known, *others]):
                    fate.leave_out(target, reason)
        return {target: speeds[target].value for target in fate.runners}

    def _measure(
        self, fate: "_Outcomes", attempt: SearchTrial, folder: Path, speeds: Mapping[Target, float]
    ) -> list[Trial]:
        """The full measurements of what is left, with longer timing of those that hold the bar."""
        name = self.space.name(attempt.structure)
        rows: dict[Target, list[Measurement]] = {}
        good: dict[Target, float] = {}
        for target, runner in sorted(fate.each(), key=lambda one: -speeds[one[0]]):
            better = next((one for one, speed in good.items() if speed >= CLEARLY * speeds[target]), None)
            if better and not self.goal.bytes_count:
                fate.leave_out(target, f"{BEATEN}: {better} holds the bar and is faster")
                continue
            what, paths = f"{name} ({target})", runtime_named(target.runtime).files(folder, target.precision)
            found = fate.tried(target, lambda: self.original.measure(runner, folder=folder, files=paths, what=what))  # noqa: B023
            if found is not None:
                rows[target], versus = found, found[0].versus
                if versus and versus.low > self.goal.bar:
                    good[target] = speeds[target]
        ratios = self._speedups(fate, list(good), FULL_ROUNDS)
        ratios |= self._speedups(fate, [target for target in rows if target not in good], SHORT_ROUNDS)
        return [
            self._trial(attempt, target, rows[target], ratios[target], folder)
            for target in self.targets
            if target in ratios
        ]

    def _speedups(self, fate: "_Outcomes", targets: Sequence[Target], rounds: int) -> dict[Target, Comparison]:
        """How many times as fast as the original the model is in each target that runs."""
        for target in targets:
            fate.tried(target, lambda: self.original.run(fate.runners[target]))  # noqa: B023
        running = [target for target in targets if target in fate.runners]
        found = self.original.speedups([fate.runners[target] for target in running], rounds=rounds)
        return dict(zip(running, found, strict=True))

    def _trial(
        self, attempt: SearchTrial, target: Target, rows: Sequence[Measurement], ratio: Comparison, folder: Path
    ) -> Trial:
        # the original's own rate, measured once, times the ratio: rates of different moments cannot be compared
        rate = self.baseline.get("throughput").value
        throughput = Measurement(
            metric="throughput",
            value=rate * ratio.value,
            unit="1/s",
            low=rate * ratio.low,
            high=rate * ratio.high,
            n=self.baseline.get("throughput").n,
            better="higher",
            versus=ratio,
        )
        own = {**target._asdict(), "candidate": attempt.number}
        return Trial(
            f"{self.space.name(attempt.structure)} ({target})",
            attempt.recipe,
            self.original.seed,
            [rows[0], throughput, *rows[1:]],
            artifact.model_digest(folder),
            {**self.original.conditions, **own},
        )


class _Outcomes(NamedTuple):
    """What became of one model in every target."""

    runners: dict[Target, nn.Module]
    """Where it still runs."""
    left_out: dict[str, str]
    """Why it does not in the others."""

    def each(self) -> list[tuple[Target, nn.Module]]:
        return list(self.runners.items())

    def leave_out(self, target: Target, reason: str) -> None:
        self.runners.pop(target, None)
        self.left_out[str(target)] = reason

    def fail(self, target: Target, error: Exception) -> None:
        self.leave_out(target, f"{FAILED}: {_sentence(error)}")

    def tried(self, target: Target, make: Callable[[], T]) -> T | None:
        """What is made, or None where it fails, which ends that target alone."""
        try:
            return make()
        except OutputNotWritten:
            raise
        except Exception as error:
            self.fail(target, error)
            return None


def _known(trial: Trial) -> _Known:
    ratio = trial.get("throughput").versus
    return _Known(trial.get("kl").value, 1.0 if ratio is None else ratio.value)


def _sentence(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
