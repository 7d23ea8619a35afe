"""A search without its work: structures get figures that are made up, in no time."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from folders import classifier, save, write_rows
from whet.evaluation import records
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.searching.space import LESS, TABLES, Structure
from whet.searching.stages import StagedEvaluation
from whet.searching.storage import FINISHED, SearchTrial
from whet.searching.targets import Target
from whet.searching.worker import Worker

PYTORCH = Target("pytorch")


def compared(value: float, low: float, high: float, kind: str) -> Comparison:
    return Comparison(kind=kind, value=value, low=low, high=high, p_value=0.5, test="none")


def trial(name: str, *, drop=(0.0, 0.0), speed: float = 1.0, disk: float = 10.0, n: int = 400) -> Trial:
    """A candidate that differs from the baseline by the first of `drop`, and by the second at worst."""
    value, low = drop
    quality = compared(value, low, 2 * value - low, "difference")
    ratio = compared(speed, speed, speed, "ratio")
    score = 0.8 + value
    rows = [
        Measurement(
            metric="accuracy", value=score, unit="", low=score, high=score, n=n, better="higher", versus=quality
        ),
        Measurement(
            metric="throughput",
            value=100 * speed,
            unit="1/s",
            low=100 * speed,
            high=100 * speed,
            n=12,
            better="higher",
            versus=ratio,
        ),
        Measurement.count("disk", disk, "MiB"),
    ]
    return Trial(name, [], 0, rows)


BASELINE = trial("baseline")


def write_model_and_data(root: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a fine-tuned model and its own data, in two files."""
    save(classifier(), tokenizer, root / "model")
    write_rows(root / "train.csv", 120)
    write_rows(root / "dev.csv", 24, seed=1)


def speed_of(structure: Structure) -> float:
    """Made-up times: a tenth of the work always stays."""
    return 1 / (0.1 + 0.9 / LESS[structure.blocks])


def drop_of(structure: Structure) -> float:
    """Made-up losses in points: steeper the less is left, and less after a recovery."""
    lost = 0.1 * (LESS[structure.blocks] - 1) ** 1.5 + 0.6 * (1 / TABLES[structure.table] - 1)
    return lost * (0.4 if structure.recovery else 1)


def candidate(
    number: int,
    structure: Structure,
    baseline: Trial,
    *,
    drop: float,
    speed: float,
    digest: str | None = None,
    recipe=(),
) -> Trial:
    """A trial of made-up figures; its interval is half a point wide to each side."""
    value, arm = -drop / 100, 0.005
    versus = Comparison(kind="difference", value=value, low=value - arm, high=value + arm, p_value=0.5, test="none")
    ratio = Comparison(kind="ratio", value=speed, low=speed, high=speed, p_value=0.5, test="none")
    first, rate = baseline.measurements[0], baseline.get("throughput").value * speed
    score = first.value + value
    rows = [
        Measurement(
            metric=first.metric, value=score, unit="", low=score, high=score, n=first.n, better="higher", versus=versus
        ),
        Measurement(
            metric="throughput", value=rate, unit="1/s", low=rate, high=rate, n=12, better="higher", versus=ratio
        ),
        Measurement.count("kl", max(0.0, drop) / 100, "nats"),
        Measurement.count("disk", baseline.get("disk").value / math.sqrt(speed), "MiB"),
    ]
    conditions = {**(baseline.conditions or {}), **PYTORCH._asdict(), "candidate": number}
    return Trial(f"{structure} (pytorch)", recipe, 0, rows, digest, conditions)


def made_up(
    drop: Callable[[Structure], float] = drop_of, speed: Callable[[Structure], float] = speed_of
) -> Callable[..., SearchTrial]:
    """A replacement for `StagedEvaluation.run`."""

    def run(self: StagedEvaluation, proposal, folder: Path, past) -> SearchTrial:
        recipe = self.space.recipe(proposal.structure, self.targets[0])
        if folder.exists():
            shutil.rmtree(folder)
        records.save_model(
            self.baseline.model, self.baseline.tokenizer, folder, recipe=recipe.to_list(), origin="model", seed=0
        )
        measured = candidate(
            *proposal,
            self.baseline_trial,
            drop=drop(proposal.structure),
            speed=speed(proposal.structure),
            digest=artifact.model_digest(folder),
            recipe=recipe.to_list(),
        )
        value = self.goal.value(measured, self.baseline_trial)
        return SearchTrial(
            *proposal,
            recipe=recipe.to_list(),
            state=FINISHED,
            value=value,
            proxy_kl=drop(proposal.structure),
            candidates=(measured,),
        )

    return run


def stop_after(monkeypatch, count: int) -> None:
    """Let a search end once so many structures are known."""
    monkeypatch.setattr(
        Worker, "_expected_seconds", lambda self, trials: math.inf if len(trials) >= count else -math.inf
    )
