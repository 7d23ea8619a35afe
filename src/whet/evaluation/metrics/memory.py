"""The peak memory that a fresh process needs to load a model and run its longest batch.

One helper process imports everything once and forks a child for every run. The peak of a child, minus its memory before
loading, is due to the model. Forking keeps imports out of the peak and out of the running time.
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
from whet.utils.precision import PYTORCH

__all__ = ["Memory"]

RUNS = 3
"""Child processes per model; their range is the interval."""


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
        helper = subprocess.run(
            [sys.executable, "-m", __name__], input=json.dumps(jobs), capture_output=True, text=True, check=False
        )
        if helper.returncode != 0:
            reason = helper.stderr.strip().rpartition("\n")[2]
            raise InvalidModel(f"every model must run in a fresh process, but got {reason}; try it alone")
        peaks = zip(json.loads(helper.stdout), jobs, strict=True)
        found = {
            id(subject): _measurement(runs, job["shape"]) for subject, (runs, job) in zip(asked, peaks, strict=True)
        }
        return [[found[id(subject)]] if id(subject) in found else [] for subject in subjects]


def _in_plain_pytorch(subject: ModelUnderTest) -> bool:
    return subject.device == "cpu" and subject.runtime == PYTORCH


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


def _in_child(source: str, kind: str, shape: list[int]) -> float:
    """Return the peak memory of a forked child in MiB, beyond the memory with which it starts."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(_peak(source, kind, shape)).encode())
        except Exception as error:
            os.write(writer, json.dumps(f"{type(error).__name__} for {source}: {error}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        reply = pipe.read()
    _, status = os.waitpid(child, 0)
    result = json.loads(reply) if reply else f"exit status {os.waitstatus_to_exitcode(status)} for {source}"
    if isinstance(result, str):
        sys.exit(" ".join(result.split()))
    return float(result)


def _peak(source: str, kind: str, shape: list[int]) -> float:
    import torch

    from whet.models.load import load_unverified

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = load_unverified(source, kind=kind)
    ids = torch.ones(shape, dtype=torch.long)
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def _serve(jobs: list[dict[str, Any]]) -> list[list[float]]:
    return [[_in_child(**job) for _ in range(RUNS)] for job in jobs]


if __name__ == "__main__":
    print(json.dumps(_serve(json.loads(sys.stdin.read()))))
