"""A student: a smaller model that learns from a fine-tuned one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Self

from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.parameters import check

__all__ = ["BuiltStudent", "Student", "all_students", "student_from"]

PACKAGE = "whet.training.students"
"""Where our own students lie; installed packages add theirs by the entry points `whet.students`."""


class BuiltStudent(NamedTuple):
    """A student before it has learnt anything."""

    model: nn.Module
    """With weights of its own, in eval mode."""
    plan: str
    """What it is made of, in a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Student(ABC):
    """A kind of smaller model, with its sizes."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range."""
        check(self)

    @classmethod
    def name(cls) -> str:
        """Return the kind's name, such as `layer_subset`; see `member_name`."""
        return member_name(cls, PACKAGE)

    @classmethod
    @abstractmethod
    def from_text(cls, text: str) -> Self:
        """Return the student that the part after the kind's name describes, such as `odd:3`.

        Raises:
            InvalidParameter: it describes none.
        """

    @property
    def reads(self) -> frozenset[str]:
        """Fields of Resources that it needs."""
        return frozenset()

    @abstractmethod
    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """Return the student of this teacher, which stays as it is.

        Raises:
            InvalidParameter: this teacher cannot have it.
        """


def all_students() -> dict[str, type[Student]]:
    """Return every kind of student by name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    return by_name(members(PACKAGE, Student, group="whet.students"), lambda student: (student.name(),))


def student_from(text: str) -> Student:
    """Return the student that a text such as `layer_subset:odd:3` describes.

    Raises:
        UnknownName: there is no such kind; the message gives the nearest.
        InvalidParameter: the kind's own part is wrong.
    """
    kind, _, rest = text.partition(":")
    known = all_students()
    if not rest:
        choose(kind, known, what="the student")
        raise InvalidParameter(f"the student must say which, but got {text!r}; add what, such as {kind}:...")
    return known[choose(kind, known, what="the student")].from_text(rest)
