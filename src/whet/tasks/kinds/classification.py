"""Classification: each text is of one class, and the head has one output per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidData
from whet.tasks.data import Batches
from whet.tasks.files import class_indices
from whet.tasks.kinds._classes import Classes
from whet.tasks.kinds._distributions import Categorical
from whet.tasks.kinds.base import Answers, Head

__all__ = ["Classification"]

Array = np.ndarray[Any, Any]


class Classification(Classes, Categorical):
    """One class per text; logits are those of a categorical distribution."""

    problem_type: ClassVar[str | None] = "single_label_classification"
    holds: ClassVar[str] = "a text classifier"

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """See `TaskKind.fits_labels`."""
        return label_names is not None

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`."""
        fitting = head.outputs != 1 and head.problem_type in (None, self.problem_type)
        return fitting and head.said in (None, self.name())

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[int]:
        """See `TaskKind.read_labels`."""
        return class_indices(raw, label_names or (), source=source)

    def check_labels(self, labels: Sequence[float], *, source: str) -> None:
        """See `TaskKind.check_labels`."""
        if len(set(labels)) < 2:
            raise InvalidData(
                f"the {source} must hold at least two classes, but got one only; give data with examples of every class"
            )

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> list[int]:
        """See `TaskKind.renumbered`."""
        return [order[int(label)] for label in labels]

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; the class of the largest logit."""
        return self.decisions(answers.logits)
