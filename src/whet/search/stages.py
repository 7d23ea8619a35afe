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
from whet.runtimes.base import Deployed, runtime_named
from whet.runtimes.export import export_to
from whet.search.baseline import FULL_ROUNDS, SHORT_ROUNDS, Look, Original
from whet.search.goal import Goal
from whet.search.recipe_cache import SharedSteps
from whet.search.sampler import Proposal
from whet.search.space import Space, Structure
from whet.search.storage import FAILED, FINISHED, PRUNED, Attempt
from whet.search.targets import Place
from whet.utils.precision import PYTORCH

__all__ = ["Ladder"]

T = TypeVar("T")

CLEARLY = 1.1
"""What is faster, or nearer, by this factor is so clearly, also in short runs and on few examples."""
SAME = 1e-4
"""A mean KL below which answers are those of the original."""
BEATEN = "beaten by another"
ENOUGH = 2
"""Structures that must have shown a place to be of no use before it is left out."""


class _Known(NamedTuple):
    """How far from the original something was, and how fast."""

    kl: float
    speed: float


@dataclass(frozen=True)
class Ladder:
    """What all structures of a search are measured against."""

    original: Original
    baseline: Trial
    """The original's own measurements."""
    goal: Goal
    space: Space
    steps: SharedSteps
    places: tuple[Place, ...]
    """Where candidates run."""

    def climb(self, proposal: Proposal, folder: Path, past: Sequence[Attempt]) -> Attempt:
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
        attempt = Attempt(*proposal, recipe=recipe.to_list(), state=FINISHED)
        try:
            attempt = self._climbed(attempt, recipe, folder, past)
        except OutputNotWritten:
            raise
        except InvalidParameter as error:  # such as a speed that no structure has here
            attempt = attempt._replace(state=PRUNED, message=_sentence(error))
        except Exception as error:
            attempt = attempt._replace(state=FAILED, message=_sentence(error))
        return attempt._replace(seconds=time.perf_counter() - begun)

    def _timed(self, past: Sequence[Attempt]) -> Place | None:
        """Where time counts: where the whole model was best, once that is known; None where bytes alone do."""
        if self.goal.best == "size":
            return None
        whole = [trial for attempt in past if attempt.structure == Structure() for trial in attempt.trials]
        return Place.of(self.goal.winner(whole, self.baseline)) if whole else self.places[0]

    def _climbed(self, attempt: Attempt, recipe: Recipe, folder: Path, past: Sequence[Attempt]) -> Attempt:
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
        fate = _Fate({}, {})
        self._deploy(fate, model, folder, past)
        speeds = self._thin(fate, past)
        trials = self._measure(fate, attempt, folder, speeds)
        if not trials:
            failed = any(reason.startswith(FAILED) for reason in fate.left_out.values())
            why = "; ".join(f"{place}: {reason}" for place, reason in fate.left_out.items())
            return attempt._replace(state=FAILED if failed else PRUNED, message=why, left_out=fate.left_out)
        value = max(self.goal.value(trial, self.baseline) for trial in trials)
        return attempt._replace(trials=tuple(trials), value=value, left_out=fate.left_out)

    def _hopeless(self, look: Look, speed: Comparison, known: Sequence[_Known]) -> str:
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

    def _deploy(self, fate: "_Fate", model: nn.Module, folder: Path, past: Sequence[Attempt]) -> None:
        """Bring the model to every place that is still in play."""
        for place in self.places:
            if self._is_out(place, past):
                fate.left_out[str(place)] = f"{BEATEN} for every structure before"
        places = [place for place in self.places if str(place) not in fate.left_out]
        if Place(PYTORCH) in places:
            fate.runners[Place(PYTORCH)] = model
        others = [place for place in places if place.runtime != PYTORCH]
        if not others:
            return
        threads = torch.get_num_threads()
        try:
            export_to(
                folder,
                [(runtime_named(place.runtime), place.precision) for place in others],
                task=self.original.deployment,
                seed=self.original.seed,
                threads=threads,
                failed=lambda runtime, precision, error: fate.fail(Place(runtime, precision), error),
            )
        except OutputNotWritten:
            raise
        except Exception as error:  # of the model in ONNX, which all of them are made from
            for place in others:
                fate.fail(place, error)
        for place in others:
            if str(place) not in fate.left_out:
                runtime = runtime_named(place.runtime)
                predict = fate.tried(
                    place,
                    lambda: runtime.open(folder, precision=place.precision, threads=threads),  # noqa: B023
                )
                if predict is not None:
                    fate.runners[place] = Deployed(model, predict)

    def _is_out(self, place: Place, past: Sequence[Attempt]) -> bool:
        """Whether a place failed or was clearly worse than another for every structure, and for several."""
        verdicts = []
        for attempt in past:
            reason = attempt.left_out.get(str(place), "")
            found = {Place.of(trial): self.goal.score(trial, self.baseline) for trial in attempt.trials}
            good = [found[Place.of(trial)] for trial in attempt.trials if self.goal.holds(trial)]
            if reason:
                verdicts += [True] * reason.startswith((BEATEN, FAILED))
            elif place in found and good:
                verdicts.append(max(good) >= CLEARLY * found[place])
        return len(verdicts) >= ENOUGH and all(verdicts)

    def _thin(self, fate: "_Fate", past: Sequence[Attempt]) -> dict[Place, float]:
        """Take away what short measurements show to be hopeless; return how fast the others seem to be."""
        looks = {place: fate.tried(place, lambda: self.original.look(runner)) for place, runner in fate.each()}  # noqa: B023
        speeds = self._speedups(fate, list(fate.runners), SHORT_ROUNDS)
        known = [_known(trial) for attempt in past for trial in attempt.trials]
        for place, speed in speeds.items():
            if (look := looks[place]) is not None:
                others = [_Known(one.kl, speeds[by].value) for by, one in looks.items() if one and by in speeds]
                if reason := self._hopeless(look, speed, [*known, *others]):
                    fate.leave_out(place, reason)
        return {place: speeds[place].value for place in fate.runners}

    def _measure(self, fate: "_Fate", attempt: Attempt, folder: Path, speeds: Mapping[Place, float]) -> list[Trial]:
        """The full measurements of what is left, with longer timing of those that hold the bar."""
        name = self.space.name(attempt.structure)
        rows: dict[Place, list[Measurement]] = {}
        good: dict[Place, float] = {}
        for place, runner in sorted(fate.each(), key=lambda one: -speeds[one[0]]):
            better = next((one for one, speed in good.items() if speed >= CLEARLY * speeds[place]), None)
            if better and not self.goal.bytes_count:
                fate.leave_out(place, f"{BEATEN}: {better} holds the bar and is faster")
                continue
            files = () if place.runtime == PYTORCH else artifact.exported(folder, *place)["files"]
            what, paths = f"{name} ({place})", [folder / file for file in files]
            found = fate.tried(place, lambda: self.original.measure(runner, folder=folder, files=paths, what=what))  # noqa: B023
            if found is not None:
                rows[place], versus = found, found[0].versus
                if versus and versus.low > self.goal.bar:
                    good[place] = speeds[place]
        ratios = self._speedups(fate, list(good), FULL_ROUNDS)
        ratios |= self._speedups(fate, [place for place in rows if place not in good], SHORT_ROUNDS)
        return [
            self._trial(attempt, place, rows[place], ratios[place], folder) for place in self.places if place in ratios
        ]

    def _speedups(self, fate: "_Fate", places: Sequence[Place], rounds: int) -> dict[Place, Comparison]:
        """How many times as fast as the original the model is in each place that runs."""
        for place in places:
            fate.tried(place, lambda: self.original.run(fate.runners[place]))  # noqa: B023
        running = [place for place in places if place in fate.runners]
        found = self.original.speedups([fate.runners[place] for place in running], rounds=rounds)
        return dict(zip(running, found, strict=True))

    def _trial(
        self, attempt: Attempt, place: Place, rows: Sequence[Measurement], ratio: Comparison, folder: Path
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
        own = {**place._asdict(), "dtype": place.precision, "candidate": attempt.number}
        return Trial(
            f"{self.space.name(attempt.structure)} ({place})",
            attempt.recipe,
            self.original.seed,
            [rows[0], throughput, *rows[1:]],
            artifact.digest(folder),
            {**self.original.conditions, **own},
        )


class _Fate(NamedTuple):
    """What became of one model in every place."""

    runners: dict[Place, nn.Module]
    """Where it still runs."""
    left_out: dict[str, str]
    """Why it does not in the others."""

    def each(self) -> list[tuple[Place, nn.Module]]:
        return list(self.runners.items())

    def leave_out(self, place: Place, reason: str) -> None:
        self.runners.pop(place, None)
        self.left_out[str(place)] = reason

    def fail(self, place: Place, error: Exception) -> None:
        self.leave_out(place, f"{FAILED}: {_sentence(error)}")

    def tried(self, place: Place, make: Callable[[], T]) -> T | None:
        """What is made, or None where it fails, which ends that place alone."""
        try:
            return make()
        except OutputNotWritten:
            raise
        except Exception as error:
            self.fail(place, error)
            return None


def _known(trial: Trial) -> _Known:
    ratio = trial.get("throughput").versus
    return _Known(trial.get("kl").value, 1.0 if ratio is None else ratio.value)


def _sentence(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
