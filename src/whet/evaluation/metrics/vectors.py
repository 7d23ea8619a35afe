"""What an index keeps of a vector, in bytes."""

from collections.abc import Sequence
from typing import ClassVar

from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest
from whet.tasks.kinds.base import NO_HEAD

__all__ = ["VectorBytes"]


class VectorBytes(Metric):
    """Bytes of one vector; of embedders alone."""

    name: ClassVar[str] = "vector_bytes"

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        if NO_HEAD not in subjects[0].answers.kind.heads:
            return [[] for _ in subjects]
        sizes = (subject.vectors.stored(subject.answers.logits[:1]).nbytes for subject in subjects)
        return [[Measurement.count(self.name, size, "bytes")] for size in sizes]
