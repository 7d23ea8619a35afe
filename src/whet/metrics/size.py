"""How big a model is: parameters, those that are not zero, and MiB on disk of weights or of what a runtime reads."""

from collections.abc import Sequence
from typing import ClassVar

from whet.checkpoint import weight_files
from whet.layer import count_weights
from whet.measurement import Measurement
from whet.metric import Metric, Subject

__all__ = ["Size"]


class Size(Metric):
    """Exact counts; tied weights count once."""

    name: ClassVar[str] = "size"

    def measure(self, subjects: Sequence[Subject]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        return [self._counts(subject) for subject in subjects]

    def _counts(self, subject: Subject) -> list[Measurement]:
        weights = list(subject.model.parameters())
        stored = sum(path.stat().st_size for path in subject.files or weight_files(subject.source))
        return [
            Measurement.count("parameters", count_weights(subject.model), ""),
            Measurement.count("nonzeros", sum(int(weight.count_nonzero()) for weight in weights), ""),
            Measurement.count("disk", stored / 2**20, "MiB"),
        ]
