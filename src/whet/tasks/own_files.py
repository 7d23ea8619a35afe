"""The base of tasks from the user's own data: where the examples come from, whatever their form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Task
from whet.tasks.files import read_table
from whet.tasks.frames import Frame, Source

__all__ = ["OwnFiles", "read_source"]


@dataclass(frozen=True, kw_only=True)
class OwnFiles(Task):
    """A task from files or tables in memory."""

    train_file: Source | None = None
    """The examples for training; measuring needs none."""
    dev_file: Source | None = None
    """The examples for the final measurement; fine-tuning and compression need none."""

    names: ClassVar[tuple[str, ...]] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Task.files`."""
        return tuple(source for source in (self.train_file, self.dev_file) if isinstance(source, Path))

    @property
    def for_training(self) -> Source:
        """The examples for training.

        Raises:
            InvalidData: there are none.
        """
        if self.train_file is None:
            raise InvalidData("--train-file must be given, but got --dev-file alone; add it")
        return self.train_file


def read_source(source: Source, columns: list[str], *, lists: Sequence[str] = ()) -> Mapping[str, list[Any]]:
    """Return the named columns of a file or of a table in memory, each a list with one entry per row.

    Args:
        source: the file or table.
        columns: names of the columns.
        lists: those of them whose cells may hold lists.

    Raises:
        InvalidData: it cannot be read, or lacks a column; see `read_table`.
    """
    return source.read(columns, lists=lists) if isinstance(source, Frame) else read_table(source, columns, lists=lists)
