"""Multi-label classification: each text has any number of labels, and the head has one output for each.

The labels of a text are 0 or 1 for each label of the task. A label is given where its probability is above .5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidData
from whet.tasks.data import Batches
from whet.tasks.files import listed
from whet.tasks.kinds._classes import Classes
from whet.tasks.kinds._distributions import Bernoulli
from whet.tasks.kinds.base import Answers, Head
from whet.tasks.label_sets import multi_hot

__all__ = ["MultiLabel"]

Array = np.ndarray[Any, Any]


class MultiLabel(Classes, Bernoulli):
    """Any number of labels per text; each logit is that of one label, apart from the others."""

    problem_type: ClassVar[str | None] = "multi_label_classification"
    holds: ClassVar[str] = "a multi-label classifier"
    several_labels: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_label_f1", "mean_average_precision")

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`; it is never guessed."""
        return self.problem_type == head.problem_type or (head.problem_type is None and head.said == self.name())

    def read_labels(
        self, raw: Sequence[Any], label_names: Sequence[str] | None, *, source: Path | str
    ) -> list[tuple[float, ...]]:
        """See `TaskKind.read_labels`; raw labels are the names of each text's labels, from `label_sets`."""
        names = label_names or ()
        indices = {name: i for i, name in enumerate(names)}
        unknown = sorted({name for labels in raw for name in labels} - set(indices))
        if unknown:
            raise InvalidData(
                f"labels in {source} must be {listed(names)}, but got {listed(unknown)}; correct or remove these rows"
            )
        return [multi_hot({indices[name] for name in labels}, len(names)) for labels in raw]

    def check_labels(self, labels: Sequence[Any], *, source: str) -> None:
        """See `TaskKind.check_labels`; some text must have a label that another has not."""
        if len(set(labels)) < 2:
            raise InvalidData(
                f"the {source} must hold texts with different labels, but all have the same; give data in which "
                "labels differ"
            )

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> list[tuple[float, ...]]:
        """See `TaskKind.renumbered`; a model's labels that the task lacks are 0."""
        chosen = ({output for has, output in zip(row, order, strict=False) if has} for row in labels)
        return [multi_hot(outputs, len(order)) for outputs in chosen]

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; the probabilities, (examples, labels), from which metrics choose."""
        from scipy.special import expit  # slow to import

        probabilities: Array = expit(answers.logits.astype(float))
        return probabilities
