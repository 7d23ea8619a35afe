"""How long dense and factored layers take on this machine, at the batch sizes and lengths of the task's own text.

Tables decide which rank is worth what time: two thin products do not pay from the rank on where they hold fewer
parameters, but from where they are measured faster. All candidates of a shape are timed in turn, so that whatever else
the machine does falls on all of them alike, and a larger rank is never taken to be faster than a smaller one.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from whet.models.inference import to_device
from whet.models.layers.low_rank import LowRank
from whet.tasks.data import Batch, Batches
from whet.utils.distributed import from_first_process

__all__ = ["Latencies", "layer_latencies", "model_latencies", "representative_batches", "time_interleaved"]

WARM_UP = 2
LAYER_ROUNDS, MODEL_ROUNDS = 12, 6
"""Rounds of timing; whole models take longer, and vary less."""
LEAST = 3
"""Rounds that are never gone below."""
TIMING = Path(tempfile.gettempdir()) / f"whet.timing.{os.getuid() if hasattr(os, 'getuid') else 0}.lock"
"""Held by what takes times on this machine. A user's own: systems may refuse to open another's file there."""
MODEL_SECONDS = 3.0
"""After which no more rounds of whole models begin; slow ones vary little, and a search times many."""


class Latencies(NamedTuple):
    """Seconds that one shape of layer takes for all representative batches together."""

    dense: float
    """The dense layer."""
    factored: dict[int, float]
    """Two factors, by rank; never falling."""


def representative_batches(batches: Batches, *, batch_size: int = 32, count: int = 3) -> list[Batch]:
    """Return a few batches that stand for all: of the size in which models are run, spread over the lengths.

    Args:
        batches: the task's own text, shortest first.
        batch_size: examples a batch.
        count: batches returned, or fewer where there is less text.
    """
    joined = _rejoined(batches.batches, batch_size)
    places = np.unique(np.linspace(0, len(joined) - 1, 2 * count + 1).round().astype(int)[1::2])
    return [joined[place] for place in places]


def time_interleaved(
    runs: Sequence[Callable[[], Any]], *, rounds: int, device: str = "cpu", budget: float = math.inf
) -> np.ndarray[Any, Any]:
    """Return (rounds, runs) seconds of calls that take turns, after a few that are thrown away.

    Of several processes of one run the first measures, while the others wait: all go on with the same figures. Other
    programs of the same user on this machine that take times so are waited for.

    Args:
        runs: what is called.
        rounds: at most; 3 at least, once they have taken `budget`.
        device: waited for.
        budget: seconds, of the rounds that count.
    """
    return from_first_process(lambda: _turns(runs, rounds, device, budget))


def _turns(runs: Sequence[Callable[[], Any]], rounds: int, device: str, budget: float) -> np.ndarray[Any, Any]:
    seconds: list[list[float]] = []
    with torch.inference_mode(), FileLock(TIMING):
        while len(seconds) < rounds + WARM_UP:
            counted = seconds[WARM_UP:]
            if len(counted) >= LEAST and sum(map(sum, counted)) > budget:
                break
            seconds.append([_seconds(run, device) for run in runs])
    return np.array(seconds[WARM_UP:])


def _seconds(run: Callable[[], Any], device: str) -> float:
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def layer_latencies(weight: Tensor, ranks: Sequence[int], batches: Sequence[Batch], *, bias: bool = True) -> Latencies:
    """Return what a layer of this shape takes, dense and at every rank.

    Args:
        weight: (out, in), of the dtype and on the device that count; its values do not matter.
        ranks: rising.
        batches: from `representative_batches`; only their shapes matter.
        bias: whether the layer has one.
    """
    out_features, in_features = weight.shape
    dense = nn.Linear(in_features, out_features, bias=bias).to(weight)
    layers = [dense, *(LowRank(in_features, out_features, rank, bias=bias).to(weight) for rank in ranks)]
    total = np.zeros(len(layers))
    for batch in batches:
        inputs = torch.randn(*batch["input_ids"].shape, in_features).to(weight)
        runs = [lambda layer=layer: layer(inputs) for layer in layers]  # noqa: B023
        seconds = time_interleaved(runs, rounds=LAYER_ROUNDS, device=weight.device.type)
        total += np.median(seconds, axis=0)
    rising = np.maximum.accumulate(total[1:])
    return Latencies(float(total[0]), dict(zip(ranks, map(float, rising), strict=True)))


def model_latencies(models: Sequence[nn.Module], batches: Sequence[Batch]) -> list[float]:
    """Return the seconds that each model takes for the batches, all models in turn."""
    total = np.zeros(len(models))
    device = next(models[0].parameters()).device.type
    for batch in batches:
        inputs = to_device(batch, models[0])
        runs = [lambda model=model: model(**inputs) for model in models]  # noqa: B023
        seconds = time_interleaved(runs, rounds=MODEL_ROUNDS, device=device, budget=MODEL_SECONDS)
        total += np.median(seconds, axis=0)
    return [float(one) for one in total]


def _rejoined(batches: Sequence[Batch], batch_size: int) -> list[dict[str, Tensor]]:
    """Small batches put together; ids and masks are padded with zeros, since only shapes matter here."""
    groups: list[list[Batch]] = [[]]
    for batch in batches:
        if groups[-1] and sum(map(_size, groups[-1])) + _size(batch) > batch_size:
            groups.append([])
        groups[-1].append(batch)
    return [_padded(group) for group in groups]


def _size(batch: Batch) -> int:
    return len(batch["attention_mask"])


def _padded(group: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    length = max(batch["attention_mask"].shape[1] for batch in group)
    return {
        key: torch.cat([nn.functional.pad(batch[key], (0, length - batch[key].shape[1])) for batch in group])
        for key in group[0]
    }


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
