"""How much longer timed work took by the clock than on the processor: above 1, others used the machine too.

The thread that asks a model computes a part of each answer itself, in every runtime, and waits for the model's other
threads only. On a machine of its own it therefore computes nearly all of the time. The other threads would hide what
is lost: two that get half a processor each compute as long as one that is alone.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from whet.evaluation.formatting import number

__all__ = ["SLOWNESS", "Stopwatch", "busy_advice", "busy_sentence"]

SLOWNESS = "slowness"
"""The condition of a trial that keeps it."""
BUSY = 1.25
"""Slowness from which figures may be wrong; one thread on a machine of its own stays below it."""
WAITING = 0.25
"""Added to it for several threads: the one that asks waits for the slowest, 1.3 on a machine of its own."""
_LEAST = 1e-3
"""Seconds of the processor below which nothing can be told."""


class Stopwatch:
    """Adds up how long work takes, by the clock and on the processor."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """By the clock."""
        self.computing = 0.0
        """Of this thread on a processor."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what the block takes."""
        begun, computing = time.perf_counter(), time.thread_time()
        yield
        self.seconds += time.perf_counter() - begun
        self.computing += time.thread_time() - computing

    @property
    def slowness(self) -> float:
        """Seconds by the clock for one of computing, at least 1."""
        return max(1.0, self.seconds / max(self.computing, _LEAST))

    @property
    def conditions(self) -> dict[str, float]:
        """What a trial keeps of it; nothing where no time was taken."""
        return {SLOWNESS: round(self.slowness, 2)} if self.seconds else {}


def busy_sentence(conditions: Mapping[str, Any] | None) -> str:
    """Return what a reader of times must know of the machine; nothing where it was idle, or where that is not known.

    Args:
        conditions: of the trial that has the times.
    """
    busy = _busy(conditions or {})
    return busy and f"{busy[0].upper()}{busy[1:]}."


def busy_advice(conditions: Mapping[str, Any]) -> str:
    """Return the same with what to do about it, for whoever has just taken the times."""
    busy, threads = _busy(conditions), conditions.get("threads", 1)
    fewer = f", or with fewer --threads than {threads}" if threads > 1 else ""
    return busy and f"{busy}; run it again when the machine is idle{fewer}"


def _busy(conditions: Mapping[str, Any]) -> str:
    slowness, threads = conditions.get(SLOWNESS), conditions.get("threads", 1)
    if not isinstance(slowness, int | float) or slowness < BUSY + (WAITING if threads > 1 else 0):
        return ""
    waited = f"{number(100 * (1 - 1 / slowness), places=0)} % of the time"
    return (
        f"the machine was busy with other work: what was timed waited {waited}, so that times and speedups may be wrong"
    )
