"""What models must share, so that their answers can be compared."""

from collections.abc import Sequence
from typing import Any

from whet.errors import InvalidData
from whet.evaluation.metrics.base import ModelUnderTest
from whet.tasks.base import Task
from whet.tasks.files import listed
from whet.tasks.pairing import folded

__all__ = ["check_same_classes"]


def check_same_classes(subjects: Sequence[ModelUnderTest], task: Task) -> None:
    """Refuse models that have different classes besides the task's, or tokens, as their answers cannot be compared.

    Raises:
        InvalidData: a model has other classes or tokens than the first.
    """

    def others(subject: ModelUnderTest) -> list[str]:
        config: Any = subject.model.config
        return [
            folded(str(config.id2label[index])) for index in subject.order[len(task.label_names or subject.order) :]
        ]

    for subject in subjects[1:]:
        shapes = [one.answers.logits.shape for one in (subjects[0], subject)]
        if task.kind.pretrained and shapes[0] != shapes[1]:
            raise InvalidData(
                "models must have the same tokens for their answers to be compared, but got other ones of "
                f"{subject.name} than of {subjects[0].name}; measure them on their own, and compare bits_per_byte"
            )
        if others(subject) != others(subjects[0]):
            got = [f"{listed(others(one)) or 'none'} ({one.name})" for one in (subjects[0], subject)]
            raise InvalidData(
                f"models must have the same classes besides those of the data, but got {' and '.join(got)}; "
                "measure them on their own"
            )
