"""How long models take in the runtime that counts: PyTorch, or another, for which they are exported first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from whet.evaluation.timing import representative_batches, time_interleaved
from whet.models.inference import to_device
from whet.runtimes.base import runtime_named
from whet.runtimes.export import load_unsaved
from whet.tasks.data import Batch, Batches
from whet.utils.precision import FP32

__all__ = ["PYTORCH", "Run", "RuntimeTimer"]

PYTORCH = "pytorch"
ROUNDS = 12
"""Of timing, at most."""
MOST_SECONDS = 3.0
"""After which no more rounds begin; slow models vary little, and many are timed."""
CALIBRATION = 4
"""Batches that ranges are taken from, where a precision wants some; they hardly change the time."""


Run = Callable[[Batch], Any]
"""A model that is ready to run on a batch."""


@dataclass(frozen=True, kw_only=True)
class RuntimeTimer:
    """Times models on a task's own text, in turn."""

    batches: Batches
    """The task's text, shortest first."""
    runtime: str = PYTORCH
    precision: str = FP32
    device: str = "cpu"
    """On which PyTorch runs."""

    def require(self) -> None:
        """Refuse to go on without what timing needs.

        Raises:
            WhetError: the runtime or the precision is not known, or cannot be had here.
        """
        runtime_named(self.runtime).supported([self.precision], device=self.device)

    def opened(self, model: nn.Module) -> Run:
        """Return what runs a model, in eval mode, on a batch; for another runtime it is exported once, here."""
        batches = self.batches.batches[:CALIBRATION]
        loaded = load_unsaved(model, runtime_named(self.runtime), precision=self.precision, batches=batches)
        return lambda batch: loaded(**to_device(batch, loaded))

    def seconds(self, runs: Sequence[Run]) -> list[float]:
        """Return how long each of what was opened takes for a few representative batches, all in turn."""
        total = np.zeros(len(runs))
        for batch in representative_batches(self.batches):
            calls = [lambda run=run: run(batch) for run in runs]  # noqa: B023
            total += np.median(time_interleaved(calls, rounds=ROUNDS, device=self.device, budget=MOST_SECONDS), axis=0)
        return [float(one) for one in total]
