"""How much memory a fresh process needs to load a model and answer its longest batch.

One helper process imports everything once, then forks a child for every run; a child's peak, less what it held before
loading, is the model's own. Forking keeps imports out of the figure and out of the time.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidModel
from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest

__all__ = ["Memory"]

RUNS = 3
"""Children per model; their spread is the interval."""


class Memory(Metric):
    """Peak resident memory in PyTorch, median of a few processes; nothing where other runtimes take part."""

    name: ClassVar[str] = "memory"

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        if subjects[0].device != "cpu" or any(subject.runtime != "pytorch" for subject in subjects):
            return [[] for _ in subjects]
        jobs: list[dict[str, Any]] = [
            {"source": subject.source, "shape": list(subject.dev.batches[-1]["input_ids"].shape)}
            for subject in subjects
        ]
        helper = subprocess.run(
            [sys.executable, "-m", __name__], input=json.dumps(jobs), capture_output=True, text=True, check=False
        )
        if helper.returncode != 0:
            reason = helper.stderr.strip().rpartition("\n")[2]
            raise InvalidModel(f"every model must run in a fresh process, but got {reason}; try it alone")
        peaks = json.loads(helper.stdout)
        return [[_measurement(runs, job["shape"])] for runs, job in zip(peaks, jobs, strict=True)]


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


def _in_child(source: str, shape: list[int]) -> float:
    """MiB that a forked child needs at its peak beyond what it starts with."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(_peak(source, shape)).encode())
        except Exception as error:
            os.write(writer, json.dumps(f"{type(error).__name__} for {source}: {error}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    found = json.loads(answer) if answer else f"exit status {os.waitstatus_to_exitcode(status)} for {source}"
    if isinstance(found, str):
        sys.exit(" ".join(found.split()))
    return float(found)


def _peak(source: str, shape: list[int]) -> float:
    import torch

    from whet.models.load import load_model

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = load_model(source)
    ids = torch.ones(shape, dtype=torch.long)
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def _serve(jobs: list[dict[str, Any]]) -> list[list[float]]:

    return [[_in_child(job["source"], job["shape"]) for _ in range(RUNS)] for job in jobs]


if __name__ == "__main__":
    print(json.dumps(_serve(json.loads(sys.stdin.read()))))
