"""The stages in which a structure is evaluated: cheap measurements first, each of which may end it, then full ones.

1. Proxies, in PyTorch: KL divergence and the metric on a few held-out batches, and a short run for the speedup.
2. The same for its exports, in every target that is still in play.
3. Full measurements, the fastest target first: the metric on the whole selection slice, and longer runs for the targets
   that hold the bar. Where only time counts, a target that is clearly slower than one that holds the bar is left out.

A structure or a target ends if even the upper end of its interval is below the bar, or if something that was measured
before is both clearly faster and clearly nearer to the baseline. All times are taken in turn with the baseline in
PyTorch, while nothing else on the machine is timed.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from whet.runtimes.export import ExportSettings, export_to
from whet.searching.baseline import FULL_ROUNDS, SHORT_ROUNDS, Baseline, ProxyScore
from whet.searching.costs import structure_seconds, target_seconds
from whet.searching.goal import Goal
from whet.searching.recipe_cache import CachedRecipes
from whet.searching.space import Space, Structure
from whet.searching.storage import FAILED, FINISHED, PRUNED, Proposal, SearchTrial
from whet.searching.targets import Target

__all__ = ["StagedEvaluation"]

T = TypeVar("T")

CLEARLY = 1.1
"""Something that is faster, or nearer, by this factor is clearly so, even in short runs and on few examples."""
SAME = 1e-4
"""Mean KL divergence below which answers count as the baseline's, in nats."""
BEATEN = "beaten by another"
NO_TIME = "no time for it"
ENOUGH = 2
"""Structures that must have shown a target to be of no use before it is left out."""


class _Point(NamedTuple):
    """How far from the baseline a model is, and how fast."""

    kl: float
    speedup: float


def _no_limit() -> float:
    """Return the seconds left where there is no limit."""
    return math.inf


def _to_nobody(what: str) -> None:
    """Tell nobody what is done."""


@dataclass(frozen=True)
class StagedEvaluation:
    """Evaluates structures, all against the same baseline and goal."""

    baseline: Baseline
    baseline_trial: Trial
    """The baseline's own measurements."""
    goal: Goal
    space: Space
    recipes: CachedRecipes
    targets: tuple[Target, ...]
    """Where candidates run."""
    left: Callable[[], float] = _no_limit
    """Returns the seconds until the confirmation must begin."""
    doing: Callable[[str], None] = _to_nobody
    """Called with what is done next."""

    def run(self, proposal: Proposal, folder: Path, past: Sequence[SearchTrial]) -> SearchTrial:
        """Return the outcome of a structure; its model and exports are left in `folder` if it passes the proxies.

        Errors of the structure are part of the outcome, and are not raised.

        Args:
            proposal: the structure.
            folder: for its model.
            past: the outcomes of all structures before.

        Raises:
            OutputNotWritten: the folder cannot be written.
        """
        start = time.perf_counter()
        recipe = self.space.recipe(proposal.structure, self._timed_target(past))
        trial = SearchTrial(*proposal, recipe=recipe.to_list(), state=FINISHED)
        try:
            trial = self._evaluated(trial, recipe, folder, past)
        except OutputNotWritten:
            raise
        except InvalidParameter as error:  # such as a speedup that no structure reaches here
            trial = trial._replace(state=PRUNED, message=_sentence(error))
        except Exception as error:
            trial = trial._replace(state=FAILED, message=_sentence(error))
        return trial._replace(seconds=time.perf_counter() - start)

    def _timed_target(self, past: Sequence[SearchTrial]) -> Target | None:
        """The target in which time counts: the whole model's best, once known; None if only bytes count."""
        if self.goal.best == "size":
            return None
        whole = [candidate for trial in past if trial.structure == Structure() for candidate in trial.candidates]
        return Target.of(self.goal.winner(whole, self.baseline_trial)) if whole else self.targets[0]

    def _evaluated(self, trial: SearchTrial, recipe: Recipe, folder: Path, past: Sequence[SearchTrial]) -> SearchTrial:
        baseline = self.baseline
        self.doing("making the model")
        model = self.recipes.apply(recipe)
        self.doing("a first look at its quality and speed")
        proxy = baseline.proxy_score(model)
        [speedup] = baseline.speedups([model], rounds=SHORT_ROUNDS)
        trial = trial._replace(proxy_kl=proxy.kl, proxy_speedup=speedup.value)
        if reason := self._hopeless(proxy, speedup, _proxy_points(past)):
            return trial._replace(state=PRUNED, message=reason)
        about = {"recipe": recipe.to_list(), "origin": baseline.source, "seed": baseline.seed}
        records.save_model(model, baseline.tokenizer, folder, **about, overwrite=True)  # type: ignore[arg-type]
        outcomes = _TargetOutcomes({}, {})
        self._load(outcomes, model, folder, past)
        self.doing("a first look at its quality and speed in each runtime")
        speedups = self._screen(outcomes, past)
        self.doing("measuring it")
        candidates = self._measure(outcomes, trial, folder, speedups)
        trial = trial._replace(candidates=tuple(candidates), left_out=outcomes.left_out)
        if not candidates:
            return trial._replace(state=FAILED if outcomes.any_failed() else PRUNED, message=outcomes.reasons())
        return trial._replace(value=max(self.goal.value(candidate, self.baseline_trial) for candidate in candidates))

    def _hopeless(self, proxy: ProxyScore, speedup: Comparison, others: Iterable[_Point]) -> str:
        """The reason why full measurements are not worth their time; empty if they are."""
        gain = proxy.versus.gain
        if gain.high <= self.goal.bar:
            return f"below the bar: {gain.value:+.3f}, at most {gain.high:+.3f}, on a few batches"
        if self.goal.bytes_count:
            return ""  # a model that is slower and further from the baseline may be smaller
        for other in others:
            if other.kl <= max(proxy.kl / CLEARLY, SAME) and other.speedup >= speedup.value * CLEARLY:
                return (
                    f"{BEATEN}, {other.speedup:.2f} times as fast as the baseline at KL {other.kl:.2g}: "
                    f"{speedup.value:.2f} at {proxy.kl:.2g}"
                )
        return ""

    def _load(self, outcomes: "_TargetOutcomes", model: nn.Module, folder: Path, past: Sequence[SearchTrial]) -> None:
        """Bring the model to every target that is still in play."""
        for target in self.targets:
            if self._is_useless(target, past):
                outcomes.leave_out(target, f"{BEATEN} for every structure before")
        for target in self._beyond(outcomes):
            outcomes.leave_out(target, NO_TIME)
        targets = [target for target in self.targets if str(target) not in outcomes.left_out]
        self._export(outcomes, folder, [target for target in targets if target.exported])
        threads = torch.get_num_threads()
        for target in targets:
            if str(target) not in outcomes.left_out:
                runtime = runtime_named(target.runtime)
                load = partial(runtime.load, model, folder, precision=target.precision, threads=threads)
                if (loaded := outcomes.attempt(target, load)) is not None:
                    outcomes.models[target] = loaded

    def _beyond(self, outcomes: "_TargetOutcomes") -> list[Target]:
        """The targets to export for that do not fit into the time, but for the first of them."""
        exported = [one for one in self.targets if one.exported and str(one) not in outcomes.left_out]
        spare = self.left() - structure_seconds(self.baseline, exported=1)
        fit = 1 + max(0.0, spare) / target_seconds(self.baseline)
        return sorted(exported, key=lambda target: target.rank)[math.floor(min(fit, len(exported))) :]

    def _export(self, outcomes: "_TargetOutcomes", folder: Path, targets: Sequence[Target]) -> None:
        if not targets:
            return
        self.doing(f"exporting for {', '.join(map(str, targets))}")
        try:
            export_to(
                folder,
                [(exporter_named(target.runtime), target.precision) for target in targets],
                settings=ExportSettings(task=self.baseline.export_task, seed=self.baseline.seed),
                failed=lambda runtime, precision, error: outcomes.fail(Target(runtime, precision), error),
            )
        except OutputNotWritten:
            raise
        except Exception as error:  # in the export to ONNX, which all of these targets share
            for target in targets:
                outcomes.fail(target, error)

    def _is_useless(self, target: Target, past: Sequence[SearchTrial]) -> bool:
        """Whether a target failed or was clearly slower than another for every structure, and for several."""
        verdicts = []
        for trial in past:
            reason = trial.left_out.get(str(target), "")
            candidates = {Target.of(candidate): candidate for candidate in trial.candidates}
            scores = {key: self.goal.score(value, self.baseline_trial) for key, value in candidates.items()}
            holding = [scores[key] for key, value in candidates.items() if self.goal.holds(value)]
            if reason:
                verdicts += [True] * reason.startswith((BEATEN, FAILED))
            elif target in scores and holding:
                verdicts.append(max(holding) >= CLEARLY * scores[target])
        return len(verdicts) >= ENOUGH and all(verdicts)

    def _screen(self, outcomes: "_TargetOutcomes", past: Sequence[SearchTrial]) -> dict[Target, float]:
        """Leave out the targets that short measurements show to be hopeless; return the others' speedups."""
        proxies = {
            target: outcomes.attempt(target, partial(self.baseline.proxy_score, model))
            for target, model in outcomes.running()
        }
        speedups = self._speedups(outcomes, list(outcomes.models), SHORT_ROUNDS)
        points = [_point(candidate) for trial in past for candidate in trial.candidates]
        points += [
            _Point(proxy.kl, speedups[target].value)
            for target, proxy in proxies.items()
            if proxy and target in speedups
        ]
        for target, speedup in speedups.items():
            if (proxy := proxies[target]) is not None and (reason := self._hopeless(proxy, speedup, points)):
                outcomes.leave_out(target, reason)
        return {target: speedups[target].value for target in outcomes.models}

    def _measure(
        self, outcomes: "_TargetOutcomes", trial: SearchTrial, folder: Path, speedups: Mapping[Target, float]
    ) -> list[Trial]:
        """The full measurements in the targets that are left, with longer timing of those that hold the bar."""
        name = self.space.name(trial.structure)
        measured: dict[Target, list[Measurement]] = {}
        holding: dict[Target, float] = {}
        for target, model in sorted(outcomes.running(), key=lambda item: -speedups[item[0]]):
            faster = next((other for other in holding if holding[other] >= CLEARLY * speedups[target]), None)
            if faster and not self.goal.bytes_count:
                outcomes.leave_out(target, f"{BEATEN}: {faster} holds the bar and is faster")
                continue
            files = runtime_named(target.runtime).files(folder, target.precision)
            measure = partial(self.baseline.measure, model, folder=folder, files=files, name=f"{name} ({target})")
            measurements = outcomes.attempt(target, measure)
            if measurements is not None:
                measured[target], versus = measurements, measurements[0].versus
                if versus and versus.low > self.goal.bar:
                    holding[target] = speedups[target]
        ratios = self._speedups(outcomes, list(holding), FULL_ROUNDS)
        ratios |= self._speedups(outcomes, [target for target in measured if target not in holding], SHORT_ROUNDS)
        return [
            self._candidate(trial, target, measured[target], ratios[target], folder)
            for target in self.targets
            if target in ratios
        ]

    def _speedups(
        self, outcomes: "_TargetOutcomes", targets: Sequence[Target], rounds: int
    ) -> dict[Target, Comparison]:
        """The speedups over the baseline in the targets that run."""
        for target in targets:
            outcomes.attempt(target, partial(self.baseline.run, outcomes.models[target]))
        running = [target for target in targets if target in outcomes.models]
        speedups = self.baseline.speedups([outcomes.models[target] for target in running], rounds=rounds)
        return dict(zip(running, speedups, strict=True))

    def _candidate(
        self, trial: SearchTrial, target: Target, measurements: Sequence[Measurement], ratio: Comparison, folder: Path
    ) -> Trial:
        # the baseline's rate was measured once and is multiplied by the ratio: rates at different times do not compare
        rate = self.baseline_trial.get("throughput")
        throughput = Measurement(
            metric="throughput",
            value=rate.value * ratio.value,
            unit="1/s",
            low=rate.value * ratio.low,
            high=rate.value * ratio.high,
            n=rate.n,
            better="higher",
            versus=ratio,
        )
        quality, *others = measurements
        return Trial(
            f"{self.space.name(trial.structure)} ({target})",
            trial.recipe,
            self.baseline.seed,
            [quality, throughput, *others],
            artifact.model_digest(folder),
            {**self.baseline.conditions, **target._asdict(), "candidate": trial.number, "max_drop": self.goal.max_drop},
        )


class _TargetOutcomes(NamedTuple):
    """What became of one structure in every target."""

    models: dict[Target, nn.Module]
    """The model in each target where it still runs."""
    left_out: dict[str, str]
    """The reason why it does not in each other target, by the target's name."""

    def running(self) -> list[tuple[Target, nn.Module]]:
        return list(self.models.items())

    def leave_out(self, target: Target, reason: str) -> None:
        self.models.pop(target, None)
        self.left_out[str(target)] = reason

    def fail(self, target: Target, error: Exception) -> None:
        self.leave_out(target, f"{FAILED}: {_sentence(error)}")

    def attempt(self, target: Target, action: Callable[[], T]) -> T | None:
        """The result of an action, or None if it fails, which ends this target alone."""
        try:
            return action()
        except OutputNotWritten:
            raise
        except Exception as error:
            self.fail(target, error)
            return None

    def any_failed(self) -> bool:
        return any(reason.startswith(FAILED) for reason in self.left_out.values())

    def reasons(self) -> str:
        return "; ".join(f"{target}: {reason}" for target, reason in self.left_out.items())


def _proxy_points(past: Sequence[SearchTrial]) -> list[_Point]:
    return [
        _Point(trial.proxy_kl, trial.proxy_speedup)
        for trial in past
        if trial.proxy_kl is not None and trial.proxy_speedup is not None
    ]


def _point(candidate: Trial) -> _Point:
    ratio = candidate.get("throughput").versus
    return _Point(candidate.get("kl").value, 1.0 if ratio is None else ratio.value)


def _sentence(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
