"""The peak memory that a fresh process needs to load a model and run its longest batch.

One helper process imports everything once and forks a child for every run. The peak of a child, minus its memory before
loading, is due to the model. Forking keeps imports out of the peak and out of the running time: a first child, which is
not measured, loads all models and tells what that imports.
"""

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidModel
from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest
from whet.utils.precision import PYTORCH

__all__ = ["RUNS", "Memory", "peaks_of"]

RUNS = 3
"""Child processes per model; their range is the interval."""
Job = Mapping[str, Any]
"""The arguments of `_run` by name."""


class _NotRunError(Exception):
    """A model that cannot be loaded or run."""


class Memory(Metric):
    """Peak resident memory in PyTorch on a CPU, median of a few processes; empty for models in other runtimes."""

    name: ClassVar[str] = "memory"

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        asked = [subject for subject in subjects if _in_plain_pytorch(subject)]
        if not asked:
            return [[] for _ in subjects]
        jobs: list[dict[str, Any]] = [
            {
                "source": subject.source,
                "kind": subject.answers.kind.name(),
                "shape": list(subject.dev.batches[-1]["input_ids"].shape),
            }
            for subject in asked
        ]
        runs = zip(asked, peaks_of(jobs), jobs, strict=True)
        found = {id(subject): _measurement(peaks, job["shape"]) for subject, peaks, job in runs}
        return [[found[id(subject)]] if id(subject) in found else [] for subject in subjects]


def _in_plain_pytorch(subject: ModelUnderTest) -> bool:
    return subject.device == "cpu" and subject.runtime == PYTORCH


def peaks_of(jobs: Sequence[Job]) -> list[list[float]]:
    """Return the peaks of all runs of each job, in MiB.

    Raises:
        InvalidModel: a model does not run in a fresh process.
    """
    helper = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(jobs), capture_output=True, text=True, check=False
    )
    if helper.returncode != 0:
        reason = helper.stderr.strip().rpartition("\n")[2]
        raise InvalidModel(f"every model must run in a fresh process, but got {reason}; try it alone")
    peaks: list[list[float]] = json.loads(helper.stdout)
    return peaks


def _measurement(runs: list[float], shape: list[int]) -> Measurement:
    return Measurement(
        metric="peak_memory",
        value=float(np.median(runs)),
        unit="MiB",
        low=min(runs),
        high=max(runs),
        n=len(runs),
        better="lower",
        conditions={"batch": shape, "interval": "range of the runs"},
    )


def _in_child(work: Callable[[Sequence[Job]], Any], jobs: Sequence[Job]) -> Any:
    """Return what a function gives in a forked child, as JSON; where it fails, end with the reason."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writer, "w") as pipe:
                json.dump(_reply(work, jobs), pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not text:  # such as one that was killed for its memory
        sys.exit(f"exit status {os.waitstatus_to_exitcode(status)} for {', '.join(job['source'] for job in jobs)}")
    reply = json.loads(text)
    if "failed" in reply:
        sys.exit(" ".join(reply["failed"].split()))
    return reply["done"]


def _reply(work: Callable[[Sequence[Job]], Any], jobs: Sequence[Job]) -> dict[str, Any]:
    try:
        return {"done": work(jobs)}
    except _NotRunError as error:
        return {"failed": str(error)}


def _peak(jobs: Sequence[Job]) -> float:
    """Return the peak memory of this process in MiB, beyond the memory with which it starts."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for job in jobs:
        _run(**job)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def _run(source: str, kind: str, shape: Sequence[int]) -> None:
    """Load a model and run its longest batch."""
    import torch

    from whet.models.load import load_unverified

    try:
        model = load_unverified(source, kind=kind)
        ids = torch.ones(shape, dtype=torch.long)
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:
        raise _NotRunError(f"{type(error).__name__} for {source}: {error}") from error


def _imported(jobs: Sequence[Job]) -> list[str]:
    """Return the modules that are imported where all models have run."""
    for job in jobs:
        _run(**job)
    return list(sys.modules)


def _serve(jobs: Sequence[Job]) -> list[list[float]]:
    for name in _in_child(_imported, jobs):
        with contextlib.suppress(ImportError):  # some are made while others are imported
            importlib.import_module(name)
    return [[_in_child(_peak, [job]) for _ in range(RUNS)] for job in jobs]


if __name__ == "__main__":
    print(json.dumps(_serve(json.loads(sys.stdin.read()))))
