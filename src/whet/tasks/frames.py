"""A user's own data: a file, or a table in memory such as a pandas.DataFrame or a datasets.Dataset."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.files import text_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Frame", "OwnData", "Source", "source_of"]

OwnData = Any
"""A path as str or Path, a pandas.DataFrame, a datasets.Dataset, another table with a method `to_pandas`, a list of
dicts that are rows, or a dict of lists that are columns."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A table in memory; two are equal only if they are the same."""

    table: Any
    """A pandas.DataFrame, or a table with a method `to_pandas`."""
    name: str
    """The argument that gave it."""

    def __str__(self) -> str:
        return f"{self.name} ({type(self.table).__name__})"

    def read(self, columns: Sequence[str], *, lists: Sequence[str] = ()) -> Mapping[str, list[Any]]:
        """Return the named columns, each a list of strings with one per row; ids of classes become their names.

        Args:
            columns: names of the columns to read.
            lists: columns whose cells may hold several texts; see `text_columns`.

        Raises:
            InvalidData: the table has no rows, lacks a column, or a cell is empty.
        """
        read = text_columns(self._frame, columns, source=self, lists=lists)
        return {column: self._named(column, values) for column, values in read.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as they are, cells by the names of their columns."""
        return [{str(name): cell for name, cell in row.items()} for row in self._frame.to_dict("records")]

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Return the names of the classes of a column of their numbers, or lists of them, as a Dataset knows them."""
        features = getattr(self.table, "features", None) if hasattr(self.table, "to_pandas") else None
        feature = features.get(column) if isinstance(features, Mapping) else None
        names = getattr(getattr(feature, "feature", feature), "names", None)
        return None if names is None else tuple(map(str, names))

    @cached_property
    def _frame(self) -> "pd.DataFrame":
        frame: pd.DataFrame = self.table.to_pandas() if hasattr(self.table, "to_pandas") else self.table
        return frame

    def _named(self, column: str, values: list[Any]) -> list[Any]:
        names = self.class_names(column)
        if names is None:
            return values
        known = {str(i): name for i, name in enumerate(names)}
        numbers = {number for value in values for number in ([value] if isinstance(value, str) else value)}
        unknown = sorted(numbers - set(known))
        if unknown:
            raise InvalidData(
                f"column {column} of {self} must hold numbers of its {len(names)} classes, but got "
                f"{', '.join(unknown[:4])}; remove the rows without a class"
            )
        return [
            known[value] if isinstance(value, str) else tuple(known[number] for number in value) for value in values
        ]


Source = Path | Frame
"""Where own data come from."""


def source_of(given: OwnData, name: str) -> Source:
    """Return the source of a user's own data.

    Args:
        given: a path as text or Path, or a table in memory: rows as a list of dicts, or columns as a dict of lists too.
        name: the argument that gave it, for messages.

    Raises:
        InvalidParameter: it is neither.
    """
    if isinstance(given, str | os.PathLike):
        return Path(given)
    if callable(getattr(given, "to_pandas", None)) or (hasattr(given, "iloc") and hasattr(given, "columns")):
        return Frame(given, name)
    rows = isinstance(given, list | tuple) and given and all(isinstance(row, Mapping) for row in given)
    if rows or (isinstance(given, Mapping) and given and all(isinstance(column, list) for column in given.values())):
        return Frame(_made_of(given, name), name)
    advice = "give pandas.DataFrame(...) of it, with columns of text and labels"
    if isinstance(given, Mapping) and any(callable(getattr(split, "to_pandas", None)) for split in given.values()):
        advice = f"give one of its splits, such as {name}=data[{next(iter(given))!r}]"
    raise InvalidParameter(
        f"{name} must be a path, a pandas.DataFrame or a datasets.Dataset, but got {type(given).__name__}; {advice}"
    )


def _made_of(given: Any, name: str) -> "pd.DataFrame":
    """The table of rows or columns in Python's own types.

    Raises:
        InvalidData: columns differ in length.
    """
    import pandas as pd

    try:
        return pd.DataFrame(given)
    except ValueError as error:
        raise InvalidData(f"the columns of {name} must be equally long, but {error}; correct them") from error
