"""Trials as `whet measure` keeps them, without any measuring, and folders of models that have them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from folders import classifier
from whet.calibration.resources import Resources
from whet.evaluation import records
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.utils.manifests import MEASUREMENTS

CONDITIONS: dict[str, Any] = {
    "task": "glue/mrpc",
    "data_sha256": "5eed",
    "cpu": "Some Processor",
    "threads": 2,
    "instruction_sets": ["avx2", "avx512f"],
    "versions": {"torch": "2.13.0"},
    "runtime": "pytorch",
    "precision": "fp32",
    "baseline": "dense",
}


def compared(kind: str, value: float, p_value: float = 0.01) -> Comparison:
    """Return a comparison with an interval of a tenth to both sides."""
    arm = abs(value) * 0.1
    return Comparison(kind=kind, value=value, low=value - arm, high=value + arm, p_value=p_value, test="none")


def trial(
    name: str,
    *,
    accuracy: float = 0.8,
    speedup: float | None = None,
    loss_is_real: bool = False,
    mib: float = 80.0,
    recipe: Sequence[dict[str, Any]] = (),
    model: str | None = None,
    **conditions: Any,
) -> Trial:
    """Return a trial; without a speedup, that of a baseline which answers in 20 ms."""
    change = None if speedup is None else compared("difference", accuracy - 0.8, 0.01 if loss_is_real else 0.6)
    ratio = None if speedup is None else compared("ratio", speedup)
    latency = 20 / (speedup or 1)

    def row(metric: str, value: float, unit: str, better: str, versus: Comparison | None) -> Measurement:
        ends = {"low": value * 0.95, "high": value * 1.05}
        return Measurement(metric=metric, value=value, unit=unit, n=408, better=better, versus=versus, **ends)

    measurements = [
        row("accuracy", accuracy, "", "higher", change),
        row("throughput", 1000 / latency, "1/s", "higher", ratio),
        row("latency_median", latency, "ms", "lower", ratio),
        Measurement.count("parameters", 22_713_986, ""),
        Measurement.count("disk", mib, "MiB"),
    ]
    return Trial(name, list(recipe), 0, measurements, model, {**CONDITIONS, **conditions})


def keep(folder: Path, *trials: Trial) -> Path:
    """Write trials as `whet measure --out` does."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{one.to_json()}\n" for one in trials)
    (folder / MEASUREMENTS).write_text(lines, encoding="utf-8")
    return folder


def saved(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    steps: Sequence[dict[str, Any]] = (),
    *,
    model: nn.Module | None = None,
    curve: str | None = None,
) -> str:
    """Save a tiny model that these steps, which need no data, were done to, and return its digest."""
    recipe = Recipe.from_list(steps)
    done = recipe.apply(model or classifier(), Resources())
    extras = None if curve is None else {"curve.csv": curve.encode()}
    records.save_model(done, tokenizer, folder, recipe=recipe.to_list(), origin="base", seed=0, extras=extras)
    return artifact.model_digest(folder)
