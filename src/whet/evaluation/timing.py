"""The one clock: how long models, layers and exports take on this machine.

Every time is taken by one loop, `_time_rounds`. The candidates of a comparison take turns on each batch, in an order
drawn anew every time, after rounds that warm the machine up, so that whatever else the machine does falls on all of
them alike. A lock keeps other programs of the same user from timing at the same moment. The rounds also say how many
times as fast one candidate is as another: see `speedup` in `significance`.
"""

import math
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from whet.errors import OutputNotWritten
from whet.evaluation.slowness import Stopwatch, busy_sentence
from whet.models.inference import model_inputs
from whet.models.layers.low_rank import LowRank
from whet.runtimes.base import runtime_named
from whet.runtimes.export import load_unsaved
from whet.tasks.data import Batch, Batches
from whet.utils.distributed import from_first_process
from whet.utils.precision import FP32, PYTORCH
from whet.utils.progress import note, progress_bar

__all__ = [
    "Call",
    "Latencies",
    "ModuleTimes",
    "Run",
    "RuntimeTimer",
    "layer_latencies",
    "machine_lock",
    "representative_batches",
    "time_batches",
    "time_interleaved",
    "time_models",
    "time_modules",
]

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
"""What is timed."""
Run = Callable[[Batch], Any]
"""A model that is ready to answer a batch."""

WARM_UP = 2
"""Rounds that run first and do not count."""
ROUNDS = 12
"""Rounds of layers and models, at most."""
LEAST = 3
"""Rounds that always run, whatever the budget."""
BUDGET = 3.0
"""Seconds a batch after which no more rounds of whole models begin: slow ones vary little, and a search times many."""
CALIBRATION = 4
"""Batches that ranges are taken from, where a precision needs calibration; they hardly change the time."""
LOCK = Path(tempfile.gettempdir()) / f"whet.timing.{os.getuid() if hasattr(os, 'getuid') else 0}.lock"
"""Held while times are taken. Each user has an own lock: systems may refuse to open another user's file there."""
PATIENCE = 1.0
"""Seconds to wait for the lock before the user is told."""


@contextmanager
def machine_lock() -> Iterator[None]:
    """Keep other programs of this user from taking times on this machine until the block ends; wait for those that do.

    Raises:
        OutputNotWritten: the lock's file cannot be written, or is not this user's own file.
    """
    lock = FileLock(LOCK, mode=0o600)
    try:
        _check_own(LOCK)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        holder = _holder(LOCK)
        by = "another program" if holder is None else f"process {holder}"
        note(
            f"waiting for {by}, another run of whet that takes times on this machine, and going on after it: times "
            "that are taken together would be wrong"
        )
        lock.acquire()
    except OSError as error:
        raise OutputNotWritten(
            f"{LOCK} must be a file that you can write, but {error.strerror or error}; remove it, or set TMPDIR to "
            "another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_own(path: Path) -> None:
    """Refuse what another user may have put in a folder that all share: a symlink, or a file of theirs."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is a symlink or no file")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise OSError("it is another user's")


def _holder(path: Path) -> int | None:
    """Return the process that holds a lock, as far as the system tells."""
    try:
        inode = path.stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        # 1: FLOCK ADVISORY WRITE PROCESS DEVICE:INODE 0 EOF
        holders = [int(words[4]) for words in locks if words[1] == "FLOCK" and words[5].endswith(f":{inode}")]
    except (OSError, ValueError, IndexError):
        return None
    return next((process for process in holders if process > 0), None)


def time_batches(
    calls: Sequence[Sequence[Call]],
    *,
    rounds: int,
    device: str = "cpu",
    budget: float = math.inf,
    seed: int = 0,
    label: str | None = None,
    stopwatch: Stopwatch | None = None,
) -> Array:
    """Return (rounds, batches, candidates) seconds; on every batch the candidates take turns in a random order.

    Of several processes of one run the first measures while the others wait, and all go on with the same times.

    Args:
        calls: for each batch, what runs it in each candidate.
        rounds: at most, those of the warm-up not included.
        device: on which the calls compute; it is waited for.
        budget: seconds after which no more rounds begin; at least 3 always run.
        seed: of the order.
        label: description of a progress bar; without one there is no bar.
        stopwatch: runs while times are taken that count.
    """
    return from_first_process(lambda: _time_rounds(calls, rounds, device, budget, seed, label, stopwatch))


def time_interleaved(
    runs: Sequence[Call], *, rounds: int, device: str = "cpu", budget: float = math.inf, seed: int = 0
) -> Array:
    """Return (rounds, runs) seconds of calls that take turns; see `time_batches`."""
    seconds: Array = time_batches([runs], rounds=rounds, device=device, budget=budget, seed=seed)[:, 0]
    return seconds


def time_models(models: Sequence[nn.Module], batches: Sequence[Batch], *, seed: int = 0) -> Array:
    """Return (rounds, models) seconds that each PyTorch model takes for all the batches."""
    device, moved = next(models[0].parameters()).device.type, [model_inputs(batch, models[0]) for batch in batches]
    return _time_passes([_run(model) for model in models], moved, device, seed)


class ModuleTimes(NamedTuple):
    """Seconds of a model and of its parts."""

    whole: float
    """Median of its forward passes."""
    modules: dict[str, float]
    """Median over the passes of what each module takes in one pass, by name; 0 for modules that did not run."""


def time_modules(
    model: nn.Module, modules: Mapping[str, nn.Module], inputs: Batch, *, rounds: int, label: str | None = None
) -> ModuleTimes:
    """Return how long a model and some of its modules take for one batch.

    Args:
        model: in eval mode.
        modules: of the model, by name.
        inputs: of one forward pass.
        rounds: forward passes that count.
        label: description of a progress bar.
    """
    device, passes = next(model.parameters()).device.type, list[dict[str, float]]()

    def forward() -> None:
        passes.append(dict.fromkeys(modules, 0.0))
        model(**inputs)

    handles = [hook for name, module in modules.items() for hook in _timing_hooks(module, name, passes, device)]
    try:
        whole = _time_rounds([[forward]], rounds, device, math.inf, seed=0, label=label)
    finally:
        for handle in handles:
            handle.remove()
    medians = {name: float(np.median([one[name] for one in passes[WARM_UP:]])) for name in modules}
    return ModuleTimes(float(np.median(whole)), medians)


class Latencies(NamedTuple):
    """Seconds that one shape of layer takes for all representative batches together."""

    dense: float
    """The dense layer."""
    factored: dict[int, float]
    """Two factors, by rank; a larger rank is never taken to be faster than a smaller one."""


def layer_latencies(weight: Tensor, ranks: Sequence[int], batches: Sequence[Batch], *, bias: bool = True) -> Latencies:
    """Return how long a layer of this shape takes, dense and at every rank.

    Two thin products pay from the rank at which they are measured to be faster, and not from where they hold fewer
    parameters.

    Args:
        weight: (out, in), of the dtype and on the device that count; its values do not matter.
        ranks: rising.
        batches: from `representative_batches`; only their shapes matter.
        bias: whether the layer has one.
    """
    out_features, in_features = weight.shape
    dense = nn.Linear(in_features, out_features, bias=bias).to(weight)
    layers = [dense, *(LowRank(in_features, out_features, rank, bias=bias).to(weight) for rank in ranks)]
    inputs = [torch.randn(*batch["input_ids"].shape, in_features).to(weight) for batch in batches]
    calls = [[partial(layer, one) for layer in layers] for one in inputs]
    total = np.median(time_batches(calls, rounds=ROUNDS, device=weight.device.type), axis=0).sum(0)
    rising = np.maximum.accumulate(total[1:])
    return Latencies(float(total[0]), dict(zip(ranks, map(float, rising), strict=True)))


@dataclass(frozen=True, kw_only=True)
class RuntimeTimer:
    """Times models on a task's own text, in the runtime and precision that count."""

    batches: Batches
    """The task's text, shortest first."""
    runtime: str = PYTORCH
    """PyTorch, or a runtime that models are exported for."""
    precision: str = FP32
    """The precision that the runtime computes in."""
    device: str = "cpu"
    """Where PyTorch runs."""

    def require(self) -> None:
        """Check that the runtime and the precision can be used here.

        Raises:
            WhetError: the runtime or the precision is unknown, or cannot be used on this machine.
        """
        runtime_named(self.runtime).supported([self.precision], device=self.device)

    def opened(self, model: nn.Module) -> Run:
        """Return a model, in eval mode, ready to run; where the runtime needs an export, it is made here, once."""
        batches = self.batches.batches[:CALIBRATION]
        return _run(load_unsaved(model, runtime_named(self.runtime), precision=self.precision, batches=batches))

    def time(self, runs: Sequence[Run]) -> Array:
        """Return (rounds, runs) seconds that opened models take for a few representative batches."""
        return _time_passes(runs, representative_batches(self.batches), self.device, seed=0)


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


def _time_rounds(
    calls: Sequence[Sequence[Call]],
    rounds: int,
    device: str,
    budget: float,
    seed: int,
    label: str | None,
    stopwatch: Stopwatch | None = None,
) -> Array:
    """The only loop that takes times."""
    generator, counted, watch = np.random.default_rng(seed), list[Array](), stopwatch or Stopwatch()
    with (
        torch.inference_mode(),
        machine_lock(),
        progress_bar(label or "timing", rounds, hidden=label is None) as progress,
    ):
        for _ in range(WARM_UP):
            _time_round(calls, device, generator)
        while len(counted) < rounds and (len(counted) < LEAST or float(np.sum(counted)) <= budget):
            with watch.running():
                counted.append(_time_round(calls, device, generator))
            progress.advance()
    return np.stack(counted)


def _time_round(calls: Sequence[Sequence[Call]], device: str, generator: np.random.Generator) -> Array:
    seconds = np.empty((len(calls), len(calls[0])))
    for batch, runs in enumerate(calls):
        for i in generator.permutation(len(runs)):
            begun = _now(device)
            runs[i]()
            seconds[batch, i] = _now(device) - begun
    return seconds


def _now(device: str) -> float:
    """The clock, once the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _time_passes(runs: Sequence[Run], batches: Sequence[Batch], device: str, seed: int) -> Array:
    """(rounds, runs) seconds of passes over all the batches, by which methods choose what they remove."""
    calls, watch = [[partial(run, batch) for run in runs] for batch in batches], Stopwatch()
    seconds: Array = time_batches(
        calls, rounds=ROUNDS, device=device, budget=BUDGET * len(batches), seed=seed, stopwatch=watch
    ).sum(1)
    if busy_sentence({**watch.conditions, "threads": torch.get_num_threads()}):
        _say_that_choices_may_be_poor()
    return seconds


@cache
def _say_that_choices_may_be_poor() -> None:
    """Say it once: a method takes times again and again."""
    note(
        "the machine is busy with other work: times by which methods choose what they remove may be wrong, and the "
        "model worse than it could be; compress it again when the machine is idle"
    )


def _run(model: nn.Module) -> Run:
    return lambda batch: model(**model_inputs(batch, model))


def _timing_hooks(
    module: nn.Module, name: str, passes: list[dict[str, float]], device: str
) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks that add up what a module takes in the last of the passes."""
    begun = 0.0

    def start(*_: Any) -> None:
        nonlocal begun
        begun = _now(device)

    def stop(*_: Any) -> None:
        passes[-1][name] += _now(device) - begun

    return [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]


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
