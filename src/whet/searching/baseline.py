"""The baseline of a search: the model that candidates are compared with, on which examples, and how both are timed.

Candidates are chosen on a selection slice of the training data: the part that is held out anyway and, where that is
small, more of it. Calibration and recovery see neither the slice nor any part of its texts. The baseline may have
memorised some of them; every change then costs it more, so that they make the bar stricter, never laxer.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.evaluation.formatting import gain_unit
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.metrics.base import ModelUnderTest, Quality, metric_named, task_qualities
from whet.evaluation.significance import bootstrap, paired_ratio
from whet.evaluation.slowness import SLOWNESS, Stopwatch
from whet.evaluation.timing import time_interleaved
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.models.architecture import refuse_cascade
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import model_inputs, predict
from whet.models.load import class_order, common_max_length
from whet.tasks.base import Splits, Task
from whet.tasks.data import Batch, Batches
from whet.tasks.encoding import encode, say_cut, shortest_first
from whet.tasks.kinds.base import Answers
from whet.tasks.splits import ResplitTask
from whet.utils.hardware import current_machine
from whet.utils.precision import FP32, PYTORCH

__all__ = ["FULL_ROUNDS", "SHORT_ROUNDS", "Baseline", "ProxyScore"]

Array = np.ndarray[Any, Any]

SELECTION_BATCH_SIZE = 32
PROXY_BATCHES = 8
"""Batches of the selection slice that proxy scores are computed on."""
CONVERSION_EXAMPLES = 32
"""Held-out examples that check a conversion to fewer bits."""
SHORT_ROUNDS, FULL_ROUNDS = 3, 12
"""Rounds of timing."""
TIMING_SECONDS = 15.0
"""Time after which no more rounds begin."""
TIMED_EXAMPLES = 64
"""Examples in a round of timing, in at least two batches."""


class ProxyScore(NamedTuple):
    """Cheap estimates of a candidate's quality, from a few batches."""

    kl: float
    """Mean KL divergence from the baseline's answers, in nats."""
    versus: Comparison
    """The difference from the baseline in the task's first metric."""


@dataclass(frozen=True)
class Baseline:
    """A loaded model, with its answers to the selection slice."""

    source: str
    """Folder or hub name."""
    model: PreTrainedModel
    """In eval mode, on the CPU."""
    tokenizer: PreTrainedTokenizerBase
    task: ResplitTask
    """Its validation split is the selection slice."""
    classes: list[int]
    """The model's class for each of the task's classes."""
    max_length: int
    """Tokens of the longest input."""
    batch_size: int
    """Examples in the batches that are timed."""
    seed: int
    """Of resampling."""
    selection: Batches
    """The selection slice, shortest text first."""
    answers: Answers
    """To the selection slice, in the order of the task's classes."""
    seconds: float
    """Time for one example of the selection slice."""
    loading: float
    """Time to load the model and to encode the slice."""
    slowness: float
    """Seconds by the clock for one of computing; above 1 where others use the machine too."""

    @classmethod
    def of(cls, source: str | Path, task: ResplitTask, *, max_length: int, batch_size: int, seed: int) -> "Baseline":
        """Load a model and compute its answers.

        Args:
            source: folder or hub name.
            task: its validation split is the selection slice.
            max_length: longer inputs are cut, in tokens.
            batch_size: examples in the batches that are timed.
            seed: of resampling.

        Raises:
            InvalidModel, InvalidArtifact: the model cannot be loaded.
            InvalidData: the head of the model does not fit the task.
        """
        begun = time.perf_counter()
        model, tokenizer = load_with_tokenizer(source, kind=task.kind.name())
        refuse_cascade(model)
        classes, length = class_order(model, task), common_max_length(max_length, model)
        say_cut(task, task.splits.train, tokenizer, max_length=length)
        ordered = shortest_first(task.splits.validation, tokenizer, max_length=length)
        selection = encode(ordered, tokenizer, max_length=length, batch_size=SELECTION_BATCH_SIZE)
        loading, watch = time.perf_counter() - begun, Stopwatch()
        with watch.running():
            answers = predict(model, selection, name="the baseline").ordered(classes)
        return cls(
            str(source), model, tokenizer, task, classes, length, batch_size, seed, selection, answers,
            seconds=watch.seconds / len(ordered), loading=loading, slowness=watch.slowness,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The name in tables."""
        return Path(self.source).resolve().name if Path(self.source).exists() else self.source

    @cached_property
    def quality(self) -> Quality:
        """The task's first metric, which the bar is on."""
        return task_qualities(self.task, self.classes)[0]

    @property
    def unit(self) -> str:
        """What the bar is in."""
        return gain_unit(self.quality.better)

    @cached_property
    def tokens(self) -> float:
        """Tokens of an example of the selection slice, on average, padding included."""
        return sum(batch["input_ids"].numel() for batch in self.selection.batches) / len(self.selection.labels)

    @cached_property
    def export_task(self) -> Task:
        """The task as exports see it: a few held-out examples check them."""
        train, held_out, dev = self.task.splits
        few = held_out.sample(CONVERSION_EXAMPLES, seed=0)
        return ResplitTask(name=self.task.name, whole=self.task, own=Splits(train, few, dev))

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """The conditions that all measurements of the search share."""
        return {
            "task": self.task.name,
            "split": "selection slice of the training data",
            "data_sha256": self.task.splits.validation.digest(),
            **current_machine().to_dict(),
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            "padding": "to the longest of a batch, sorted by length",
            "baseline": self.name,
            SLOWNESS: round(self.slowness, 2),
            "versions": artifact.versions(),
        }

    def proxy_score(self, model: nn.Module) -> ProxyScore:
        """Return estimates of a candidate's quality from a few examples of the selection slice.

        Raises:
            InvalidModel: the answers of the candidate are not finite.
        """
        few, wanted = self._few
        found = predict(model, few, name="a few batches").ordered(self.classes)
        quality = self.quality
        predictions = [answers.kind.predictions(answers, few) for answers in (found, wanted)]
        versus = quality.compare(few.labels, *predictions, seed=self.seed)
        return ProxyScore(float(wanted.divergences(found).mean()), versus)

    def measure(self, model: nn.Module, *, folder: Path, files: Sequence[Path], name: str) -> list[Measurement]:
        """Return quality, fidelity and size of a candidate, on the whole selection slice.

        Args:
            model: the candidate, in any runtime.
            folder: where it was saved.
            files: the files that its runtime reads; if empty, its weights.
            name: of the candidate, for the progress bar and errors.

        Raises:
            InvalidModel: the answers of the candidate are not finite.
        """
        answers = predict(model, self.selection, name=name).ordered(self.classes)
        return self._measurements(self._under_test(model, str(folder), answers, tuple(files)))

    def trial(self) -> Trial:
        """Return the baseline's own measurements."""
        runs = [lambda: self.run(self.model)]
        seconds = time_interleaved(runs, rounds=FULL_ROUNDS, budget=TIMING_SECONDS, seed=self.seed)[:, 0]
        rates = sum(len(batch["input_ids"]) for batch in self._timed_batches) / seconds
        estimate = bootstrap(lambda drawn: float(np.median(rates[drawn])), len(rates), seed=self.seed)
        throughput = Measurement(metric="throughput", **estimate._asdict(), unit="1/s", n=len(rates), better="higher")
        quality, *others = self._measurements(None)
        target = {"runtime": PYTORCH, "precision": FP32}
        return Trial(self.name, [], self.seed, [quality, throughput, *others], None, {**self.conditions, **target})

    def speedups(self, models: Sequence[nn.Module], *, rounds: int) -> list[Comparison]:
        """Return the speedup of each candidate over the baseline, all of them timed in turn.

        Args:
            models: the candidates, in any runtime.
            rounds: of timing, at most.
        """
        if not models:
            return []
        runs = [lambda model=model: self.run(model) for model in (self.model, *models)]
        seconds = time_interleaved(runs, rounds=rounds, budget=TIMING_SECONDS, seed=self.seed)
        return [paired_ratio(seconds[:, 0], own, seed=self.seed) for own in seconds[:, 1:].T]

    def run(self, model: nn.Module) -> None:
        """Run a model on the batches that are timed."""
        with torch.inference_mode():
            for batch in self._timed_batches:
                model(**batch)

    @cached_property
    def _few(self) -> tuple[Batches, Answers]:
        """A few whole examples, runs of them spread over the lengths, and the baseline's answers to them.

        They are encoded by themselves: batches of the slice may hold one side of a pair, or some windows of a context.
        """
        ordered = self.selection.source
        assert ordered is not None, "encode keeps the examples"
        starts = np.arange(0, len(ordered), SELECTION_BATCH_SIZE)
        chosen = starts[np.unique(np.linspace(0, len(starts) - 1, PROXY_BATCHES).round().astype(int))]
        indices = (chosen[:, None] + np.arange(SELECTION_BATCH_SIZE)).ravel()
        examples = ordered.take(indices[indices < len(ordered)]).brief()
        few = encode(examples, self.tokenizer, max_length=self.max_length, batch_size=SELECTION_BATCH_SIZE)
        return few, predict(self.model, few, name="the baseline").ordered(self.classes)

    @cached_property
    def _timed_batches(self) -> tuple[Batch, ...]:
        """A few batches of `batch_size`, spread over the lengths."""
        ordered = shortest_first(self.task.splits.validation, self.tokenizer, max_length=self.max_length)
        few = ordered.brief()
        batches = encode(few, self.tokenizer, max_length=self.max_length, batch_size=self.batch_size).batches
        count = max(2, TIMED_EXAMPLES // self.batch_size)
        indices = np.unique(np.linspace(0, len(batches) - 1, 2 * count + 1).round().astype(int)[1::2])
        return tuple(model_inputs(batches[i], self.model) for i in indices)

    def _measurements(self, candidate: ModelUnderTest | None) -> list[Measurement]:
        """The measurements of a candidate, or of the baseline if there is none."""
        models = [self._under_test(self.model, self.source, self.answers, ())]
        models += [] if candidate is None else [candidate]
        metrics = [*task_qualities(self.task, self.classes), *map(metric_named, ("fidelity", "size"))]
        return [measurement for metric in metrics for measurement in metric.measure(models)[-1]]

    def _under_test(self, model: nn.Module, source: str, answers: Answers, files: tuple[Path, ...]) -> ModelUnderTest:
        batches = self.selection
        return ModelUnderTest(
            name=self.name,
            source=source,
            model=model,
            device="cpu",
            max_length=self.max_length,
            dev=batches,
            answers=answers,
            singles=batches,
            timed=batches,
            rounds=FULL_ROUNDS,
            seed=self.seed,
            files=files,
        )
