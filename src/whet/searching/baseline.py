"""The original of a search: what candidates are compared with, on which examples, and how both are timed.

Candidates are chosen on a selection slice of the training data: what is held out of it anyway, and where that is
little, more of it. Calibration and recovery see neither the slice nor any part of its texts. The original may know
those by heart; it loses more by every change then, so that they make the bar stricter, and never laxer.
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

from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.metrics.base import ModelUnderTest, metric_named, quality_named
from whet.evaluation.significance import bootstrap, paired_ratio
from whet.evaluation.timing import time_interleaved
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.models.artifact import load_any
from whet.models.inference import predict_logits
from whet.models.load import class_order, common_max_length, load_tokenizer
from whet.numerics.divergence import kl_divergences
from whet.tasks.base import Splits, Task
from whet.tasks.data import Batch, Batches
from whet.tasks.encoding import encode, shortest_first
from whet.tasks.splits import ResplitTask
from whet.utils.hardware import current_machine
from whet.utils.precision import FP32, PYTORCH

__all__ = ["FULL_ROUNDS", "SHORT_ROUNDS", "Baseline", "ProxyScore"]

Array = np.ndarray[Any, Any]

SLICE_BATCH = 32
FEW = 8
"""Batches of the selection slice that cheap looks are taken at."""
CONVERTED = 32
"""Examples by which a conversion to fewer bits is checked."""
SHORT_ROUNDS, FULL_ROUNDS = 3, 12
"""Rounds of timing."""
FULL_SECONDS = 15.0
"""After which no more rounds begin."""
TIMED = 64
"""Examples of a round, in two batches at least."""


class ProxyScore(NamedTuple):
    """What little a few batches say."""

    kl: float
    versus: Comparison


@dataclass(frozen=True)
class Baseline:
    """The original model, loaded, with its answers."""

    source: str
    """Folder or hub name."""
    model: PreTrainedModel
    """In eval mode, on the CPU."""
    tokenizer: PreTrainedTokenizerBase
    task: ResplitTask
    """Its validation split is the selection slice."""
    order: list[int]
    """The model's class for each of the task's."""
    length: int
    """Longest input, in tokens."""
    batch_size: int
    """Examples of the batches that are timed."""
    seed: int
    selection: Batches
    """The selection slice, shortest first."""
    logits: Array
    """(examples, classes) its answers to it, the classes in the task's order."""
    seconds: float
    """That it took for an example of it."""

    @classmethod
    def of(cls, source: str | Path, task: ResplitTask, *, max_length: int, batch_size: int, seed: int) -> "Baseline":
        """Load the model and let it answer.

        Raises:
            InvalidModel, InvalidArtifact: it cannot be loaded.
            InvalidData: its head does not fit the task.
        """
        model, tokenizer = load_any(source).eval(), load_tokenizer(source)
        order, length = class_order(model, task), common_max_length(max_length, model)
        ordered = shortest_first(task.splits.validation, tokenizer, max_length=length)
        selection = encode(ordered, tokenizer, max_length=length, batch_size=SLICE_BATCH)
        begun = time.perf_counter()
        logits = predict_logits(model, selection, name="the original")[:, order]
        seconds = (time.perf_counter() - begun) / len(logits)
        return cls(str(source), model, tokenizer, task, order, length, batch_size, seed, selection, logits, seconds)

    @property
    def name(self) -> str:
        """What tables call it."""
        return Path(self.source).resolve().name if Path(self.source).exists() else self.source

    @cached_property
    def export_task(self) -> Task:
        """The task as conversions see it: they look at a few held-out examples only."""
        train, held_out, dev = self.task.splits
        return ResplitTask(
            name=self.task.name, whole=self.task, own=Splits(train, held_out.sample(CONVERTED, seed=0), dev)
        )

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What all measurements of the search have in common."""
        return {
            "task": self.task.name,
            "split": "selection slice of the training data",
            "data_sha256": self.task.splits.validation.digest(),
            **current_machine().to_dict(),
            "batch_size": self.batch_size,
            "max_length": self.length,
            "padding": "to the longest of a batch, sorted by length",
            "baseline": self.name,
            "versions": artifact.versions(),
        }

    def look(self, model: nn.Module) -> ProxyScore:
        """Return what a few batches of the selection slice say of a candidate.

        Raises:
            InvalidModel: its answers are not finite.
        """
        few, rows = self._few
        logits, wanted = predict_logits(model, few, name="a few batches")[:, self.order], self.logits[rows]
        quality = quality_named(self.task.metrics[0])
        versus = quality.compare(few.labels, quality.predict(logits), quality.predict(wanted), seed=self.seed)
        return ProxyScore(float(kl_divergences(wanted, logits).mean()), versus)

    @property
    def looked_at(self) -> int:
        """How many examples that is."""
        return len(self._few[1])

    def measure(self, model: nn.Module, *, folder: Path, files: Sequence[Path], what: str) -> list[Measurement]:
        """Return quality, fidelity and size of a candidate, on the whole selection slice.

        Args:
            model: the candidate, wherever it runs.
            folder: where it was saved.
            files: what its runtime reads; the weights, if none.
            what: for the progress bar and errors.

        Raises:
            InvalidModel: its answers are not finite.
        """
        logits = predict_logits(model, self.selection, name=what)[:, self.order]
        return self._rows(self._subject(model, str(folder), logits, tuple(files)))

    def measured(self) -> Trial:
        """Return the original's own measurements."""
        seconds = time_interleaved([lambda: self.run(self.model)], rounds=FULL_ROUNDS, budget=FULL_SECONDS)[:, 0]
        rates = sum(len(batch["input_ids"]) for batch in self._timed) / seconds
        estimate = bootstrap(lambda drawn: float(np.median(rates[drawn])), len(rates), seed=self.seed)
        throughput = Measurement(metric="throughput", **estimate._asdict(), unit="1/s", n=len(rates), better="higher")
        first, *others = self._rows(None)
        where = {"runtime": PYTORCH, "precision": FP32}
        return Trial(self.name, [], self.seed, [first, throughput, *others], None, {**self.conditions, **where})

    def speedups(self, models: Sequence[nn.Module], *, rounds: int) -> list[Comparison]:
        """Return how many times as fast as the original each candidate is, all of them in turn."""
        if not models:
            return []
        runs = [lambda model=model: self.run(model) for model in (self.model, *models)]
        seconds = time_interleaved(runs, rounds=rounds, budget=FULL_SECONDS)
        first = seconds[:, 0].tolist()
        return [paired_ratio(first, seconds[:, i].tolist(), seed=self.seed) for i in range(1, len(runs))]

    def run(self, model: nn.Module) -> None:
        """Let a model answer what is timed."""
        with torch.inference_mode():
            for batch in self._timed:
                model(**batch)

    @cached_property
    def _few(self) -> tuple[Batches, Array]:
        """Some batches, spread over the lengths, and the places of their examples in the slice."""
        chosen = np.unique(np.linspace(0, len(self.selection) - 1, FEW).round().astype(int))
        batches = [self.selection.batches[i] for i in chosen]
        rows = np.concatenate(
            [i * SLICE_BATCH + np.arange(len(batch["input_ids"])) for i, batch in zip(chosen, batches, strict=True)]
        )
        return Batches(batches, self.selection.labels[rows]), rows

    @cached_property
    def _timed(self) -> tuple[Batch, ...]:
        """Batches of the size that counts, spread over the lengths."""
        ordered = shortest_first(self.task.splits.validation, self.tokenizer, max_length=self.length)
        batches = encode(ordered, self.tokenizer, max_length=self.length, batch_size=self.batch_size).batches
        count = max(2, TIMED // self.batch_size)
        places = np.unique(np.linspace(0, len(batches) - 1, 2 * count + 1).round().astype(int)[1::2])
        return tuple(batches[i] for i in places)

    def _rows(self, candidate: ModelUnderTest | None) -> list[Measurement]:
        """The measurements of the last of both."""
        subjects = [self._subject(self.model, self.source, self.logits, ())]
        subjects += [] if candidate is None else [candidate]
        asked = [*map(quality_named, self.task.metrics), *map(metric_named, ("fidelity", "size"))]
        return [one for metric in asked for one in metric.measure(subjects)[-1]]

    def _subject(self, model: nn.Module, source: str, logits: Array, files: tuple[Path, ...]) -> ModelUnderTest:
        batches = self.selection
        return ModelUnderTest(
            name=self.name,
            source=source,
            model=model,
            device="cpu",
            max_length=self.length,
            dev=batches,
            logits=logits,
            singles=batches,
            timed=batches,
            rounds=FULL_ROUNDS,
            seed=self.seed,
            files=files,
        )
