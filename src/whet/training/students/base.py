"""The base of students: smaller models that are distilled from a fine-tuned teacher."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.models.layers.base import count_weights
from whet.utils.calls import checked
from whet.utils.inputs import one_line
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.parameters import check

__all__ = ["BuiltStudent", "Student", "all_students", "require_runs", "require_size", "student_from"]

PACKAGE = "whet.training.students"
"""Where our own students lie; installed packages add theirs by the entry points `whet.students`."""


LARGEST = 2**30
"""Parameters of the largest student, where the teacher is not larger: 4 GiB."""


class BuiltStudent(NamedTuple):
    """A student before training."""

    model: nn.Module
    """The student, in eval mode; it shares no weights with the teacher."""
    plan: str
    """Description of the student, for users and for the record of the run."""
    title: str = "student"
    """Short name of the student, such as `DistilBERT-like student: layers 1, 3, 5`, which ` of TEACHER` may follow."""


@dataclass(frozen=True, kw_only=True)
class Student(ABC):
    """A kind of smaller model with its sizes; `build` makes the model for a given teacher."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range."""
        check(self)

    @classmethod
    def name(cls) -> str:
        """Return the name of this kind of student, such as `layer_subset`; see `member_name`."""
        return member_name(cls, PACKAGE)

    @classmethod
    @abstractmethod
    def from_text(cls, text: str) -> Self:
        """Return the student that a text describes.

        Args:
            text: the part of the command line's text after the kind's name, such as `top:3`.

        Raises:
            InvalidParameter: the text describes no student of this kind.
        """

    @property
    def reads(self) -> frozenset[str]:
        """Fields of Resources that it needs."""
        return frozenset()

    @abstractmethod
    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """Return the student for a teacher, which stays unchanged.

        Args:
            teacher: the fine-tuned model, in eval mode.
            resources: the fields that `reads` names, and the seed.

        Raises:
            InvalidParameter: the sizes do not fit this teacher.
            InvalidModel: the teacher has no such student.
        """


def require_size(make: Callable[[], nn.Module], teacher: nn.Module) -> None:
    """Check, before it takes any memory, that a student can be built and is not absurdly large.

    Args:
        make: makes the student.
        teacher: a student may be as large as its teacher, whatever its size.

    Raises:
        InvalidParameter: it has more parameters than its teacher and than `LARGEST`, or torch cannot make it.
    """
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in make().parameters())
    except InvalidParameter:
        raise
    except Exception as error:  # whatever a model raises for sizes that do not go together
        raise _no_model(error) from error
    largest = max(LARGEST, count_weights(teacher))
    if count > largest:
        raise InvalidParameter(
            f"a student must have at most {largest:,} parameters, but got {count:,}; give smaller sizes"
        )


def require_runs(student: nn.Module) -> None:
    """Check that a student gives an answer: not all sizes, and not all blocks, make a model that runs.

    Raises:
        InvalidParameter: it does not.
    """
    ids = torch.ones(1, 2, dtype=torch.int64, device=next(student.parameters()).device)
    try:
        with torch.inference_mode():
            student(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:  # whatever a model raises for sizes that do not go together
        raise _no_model(error) from error


def _no_model(error: Exception) -> InvalidParameter:
    return InvalidParameter(
        f"the student's sizes and blocks must make a model, but got {type(error).__name__}: {one_line(error)}; give "
        "others, such as half of the teacher's"
    )


def all_students() -> dict[str, type[Student]]:
    """Return every kind of student by name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    return by_name(members(PACKAGE, Student, group="whet.students"), lambda student: (student.name(),))


@checked
def student_from(text: str) -> Student:
    """Return the student that a text such as `layer_subset:top:3` describes.

    Raises:
        UnknownName: there is no such kind; the message gives the nearest name.
        InvalidParameter: the part after the kind is missing or wrong.
    """
    kind, _, rest = text.partition(":")
    kinds = all_students()
    if not rest:
        choose(kind, kinds, what="the student")
        raise InvalidParameter(f"the student must be KIND:SIZES, but got {text!r}; add the sizes after {kind}:")
    return kinds[choose(kind, kinds, what="the student")].from_text(rest)
