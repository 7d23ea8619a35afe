"""The size of a model: parameters, nonzero parameters, and MiB of its files, on disk and compressed.

The compressed size is that of DEFLATE at its fastest level, as in archives and downloads.
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
        compressed = sum(_compressed_size(path, path.stat().st_mtime_ns) for path in files)
        return [
            Measurement.count("parameters", count_weights(subject.model), ""),
            Measurement.count("nonzeros", count_nonzeros(subject.model), ""),
            Measurement.count("disk", stored / MIB, "MiB"),
            Measurement.count("compressed", compressed / MIB, "MiB"),
        ]


@lru_cache(maxsize=256)
def _compressed_size(path: Path, _modified: int) -> int:
    """Return the compressed size of a file in bytes; cached for the many rows of one model until the file changes."""
    compressor, size = zlib.compressobj(level=1), 0
    with path.open("rb") as file:
        while piece := file.read(MIB):
            size += len(compressor.compress(piece))
    return size + len(compressor.flush())
