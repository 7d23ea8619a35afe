"""What kinds have in common whose heads have one output, a score."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from whet.tasks.files import finite_scores
from whet.tasks.kinds._distributions import Gaussian

__all__ = ["Score"]


class Score(Gaussian):
    """One score per input: the mean of a normal distribution of unit variance."""

    gives: ClassVar[str] = "one score"

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return ("score",)

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[float]:
        """See `TaskKind.read_labels`."""
        return finite_scores(raw, source=source)
