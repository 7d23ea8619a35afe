"""How big a model is: parameters, those that are not zero, and MiB of weights or of what a runtime reads.

On disk, and compressed by DEFLATE as archives and downloads are, at its fastest.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest
from whet.models.layers.base import count_nonzeros, count_weights
from whet.models.load import weight_files

__all__ = ["Size"]

MIB = 2**20


class Size(Metric):
    """Exact counts; tied weights count once."""

    name: ClassVar[str] = "size"

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        return [self._counts(subject) for subject in subjects]

    def _counts(self, subject: ModelUnderTest) -> list[Measurement]:
        files = subject.files or weight_files(subject.source)
        stored = sum(path.stat().st_size for path in files)
        left = sum(_compressed(path, path.stat().st_mtime_ns) for path in files)
        return [
            Measurement.count("parameters", count_weights(subject.model), ""),
            Measurement.count("nonzeros", count_nonzeros(subject.model), ""),
            Measurement.count("disk", stored / MIB, "MiB"),
            Measurement.count("compressed", left / MIB, "MiB"),
        ]


@lru_cache(maxsize=256)
def _compressed(path: Path, _changed: int) -> int:
    """How many bytes are left of a file; asked once for the many rows of one model, as long as it does not change."""
    compressor, size = zlib.compressobj(level=1), 0
    with path.open("rb") as file:
        while piece := file.read(MIB):
            size += len(compressor.compress(piece))
    return size + len(compressor.flush())
