"""What tasks of running text share: no labels, and a kind that follows from how a model reads."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task
from whet.tasks.corpus import Passages, Reading
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.utils.inputs import one_line, require_file

__all__ = ["READINGS", "LanguageTask", "running_text_of"]

READINGS: dict[str, Reading] = {"language_modeling": "causal", "masked_language_modeling": "masked"}
"""How models of each kind read a text."""


@dataclass(frozen=True, kw_only=True)
class LanguageTask(Task):
    """Text for decoders; and for masked models, if that is what it is read for."""

    serves: ClassVar[tuple[str, ...]] = tuple(READINGS)

    @property
    def label_names(self) -> None:
        """See `Task.label_names`; a text has none."""
        return

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named(self.read_for or next(iter(READINGS)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return self.kind.metrics

    @property
    def reading(self) -> Reading:
        """How models read the text."""
        return READINGS[self.kind.name()]

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self.passages

    @cached_property
    def passages(self) -> tuple[Passages, Passages]:
        """The passages for training, and those for the final measurement."""
        return self.read_passages()

    @abstractmethod
    def read_passages(self) -> tuple[Passages, Passages]:
        """Return the passages for training, and those for the final measurement.

        Raises:
            InvalidData: a file is missing, cannot be read, or holds too little text.
        """


def running_text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidData: there is no such file, it is empty, or it is not UTF-8.
    """
    require_file(path, what="the text file", error=InvalidData)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(
            f"the text file must be UTF-8, but {one_line(path)} cannot be read: {one_line(error)}; save it as UTF-8"
        ) from error
    if not text.strip():
        raise InvalidData(f"the text file must hold words, but {one_line(path)} is empty; write it again")
    return text
