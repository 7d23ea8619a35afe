"""Multi-label classification: each text has any number of labels, and the head has one output for each.

The labels of a text are 0 or 1 for each label of the task. A label is given where its probability is above .5.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidData
from whet.tasks.data import Batches
from whet.tasks.files import listed
from whet.tasks.kinds._distributions import Bernoulli
from whet.tasks.kinds.base import Answers, Head
from whet.tasks.label_sets import multi_hot
from whet.tasks.pairing import Pairing, pair_classes

__all__ = ["MultiLabel"]

Array = np.ndarray[Any, Any]


class MultiLabel(Bernoulli):
    """Any number of labels per text; each logit is that of one label, apart from the others."""

    problem_type: ClassVar[str | None] = "multi_label_classification"
    holds: ClassVar[str] = "a multi-label classifier"
    has_classes: ClassVar[bool] = True
    several_labels: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_label_f1", "mean_average_precision")

    def fits_labels(self, label_names: Sequence[str] | None) -> bool:
        """See `TaskKind.fits_labels`; names alone stand for classes, so that tasks say this kind."""
        return False

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`; it is never guessed."""
        return self.problem_type == head.problem_type or (head.problem_type is None and head.said == self.name())

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return tuple(label_names or ())

    def label_names(self, head: Mapping[int, str]) -> tuple[str, ...]:
        """See `TaskKind.label_names`."""
        return tuple(head.values())

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """See `TaskKind.pairing`."""
        return pair_classes(head, self.output_names(label_names), ordered=ordered, label_map=label_map)

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
