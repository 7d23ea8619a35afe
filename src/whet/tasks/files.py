"""Reads CSV, TSV, JSONL and Parquet files, also packed with gzip, and parses columns of labels."""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whet.errors import InvalidData
from whet.utils.inputs import one_line, require_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "class_indices", "finite_scores", "listed", "read_frame", "read_table", "text_columns"]

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
"""File endings that can be read; each may be followed by .gz. A .txt file is read as TSV."""
_NO_TEXT: dict[type, str] = {bytes: "bytes", list: "a list", dict: "a mapping", np.ndarray: "a list"}
"""Types of cells that stand for no text, and what they are called."""


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    header: Sequence[str] | None = None,
    missing_as: str | None = None,
    lists: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> Mapping[str, list[Any]]:
    """Return the named columns of a file, each a list of strings with one per row.

    Args:
        path: the file, whose ending gives the format. Quotes are literal in TSV, as in the GLUE files, and quote cells
            in CSV.
        columns: names of the columns to read.
        header: names of all columns of a file without a header line.
        missing_as: text that replaces an empty cell; None makes empty cells an error.
        lists: columns whose cells may hold several texts; see `text_columns`.
        optional: further columns, whose cells may be empty and are so throughout if the file lacks the column.

    Raises:
        InvalidData: the file is missing, empty, unreadable or not UTF-8, or is no regular file; or it lacks a column,
            or a cell holds no text, such as a list or half a character.
    """
    require_file(path, what="the data file", error=InvalidData)
    if "" in columns:
        raise InvalidData(f"the name of a column must not be empty, but got '' for {one_line(path)}; give its name")
    if path.stat().st_size == 0:
        raise InvalidData(f"the data file must hold rows, but {one_line(path)} is empty; write it again")
    frame = read_frame(path, header)
    found = text_columns(frame, columns, source=path, missing_as=missing_as, lists=lists)
    there = [column for column in optional if column in frame.columns]
    return {
        **{column: [""] * len(frame) for column in optional},
        **found,
        **text_columns(frame, there, source=path, missing_as=""),
    }


def text_columns(
    frame: "pd.DataFrame",
    columns: Sequence[str],
    *,
    source: object,
    missing_as: str | None = None,
    lists: Sequence[str] = (),
) -> Mapping[str, list[Any]]:
    """Return the named columns of a table, each a list of strings with one per row.

    Args:
        frame: the table.
        columns: names of the columns to read.
        source: the source of the table, for error messages.
        missing_as: text that replaces an empty cell; None makes empty cells an error.
        lists: columns whose cells may hold several texts: then a tuple of them stands for the cell. They may be empty.

    Raises:
        InvalidData: the table has no rows, lacks a column or has it twice, or a cell is empty or holds no text.
    """
    if frame.empty:
        raise InvalidData(f"the data file must hold rows, but {one_line(source)} has none; write it again")
    names = list(frame.columns)
    absent = [column for column in columns if column not in names]
    if absent:
        raise InvalidData(
            f"the columns {', '.join(absent)} must be in {one_line(source)}, "
            f"but got {one_line(listed([str(name) for name in names]))}; give the names of columns in the file"
        )
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise InvalidData(f"each column must be in {one_line(source)} once, but got {twice[0]} twice; rename one")
    return {
        column: _lists(frame[column], column, source)
        if column in lists
        else _strings(frame[column], column, source, missing_as)
        for column in columns
    }


def class_indices(labels: Sequence[str], names: Sequence[str], *, source: Path | str) -> list[int]:
    """Return the index of each label in `names`.

    Args:
        labels: one label per row, as spelled in the file.
        names: all labels that may occur, in the order of the classes.
        source: the source of the labels, for the error message.

    Raises:
        InvalidData: a label is not among the names.
    """
    indices = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(labels) - set(indices))
    if unknown:
        raise InvalidData(
            f"labels in {source} must be {listed(names)}, but got {listed(unknown)}; correct or remove these rows"
        )
    return [indices[label] for label in labels]


def finite_scores(raw: Sequence[str], *, source: Path | str) -> list[float]:
    """Return a column of scores as numbers.

    Args:
        raw: one score per row, as text.
        source: the source of the scores, for the error message.

    Raises:
        InvalidData: a score is not a number, or is NaN or infinite.
    """
    scores = []
    for row, text in enumerate(raw, start=1):
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InvalidData(
                f"scores in {source} must be finite numbers, but got {text!r} in row {row}; "
                "correct the row, or give the name of the column of scores"
            )
        scores.append(score)
    return scores


def listed(names: Sequence[str], limit: int = 10) -> str:
    """Return the first names for a message, and how many there are more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _lists(values: "pd.Series", column: str, source: object) -> list[str | tuple[str, ...]]:
    cells: list[str | tuple[str, ...]] = []
    for row, (value, empty) in enumerate(zip(values, values.isna(), strict=True), start=1):
        several = isinstance(value, list | tuple | np.ndarray)
        parts = list(value) if several else [] if empty else [value]
        if any(part is None or type(part) in _NO_TEXT for part in parts):
            raise InvalidData(
                f"column {column} must hold texts or lists of them, but row {row} of {one_line(source)} holds "
                f"{one_line(value):.60}; convert it"
            )
        texts = tuple(map(str, parts))
        cells.append(texts if several else "".join(texts))
    _refuse_half_characters([cell if isinstance(cell, str) else " ".join(cell) for cell in cells], column, source)
    return cells


def _strings(values: "pd.Series", column: str, source: object, missing_as: str | None) -> list[str]:
    # a list, or the like, is neither empty nor text; pandas would look for empty values inside of it
    for row, value in enumerate(values, start=1):
        if type(value) in _NO_TEXT:
            raise InvalidData(
                f"column {column} must hold text or numbers, but row {row} of {one_line(source)} holds "
                f"{_NO_TEXT[type(value)]}; convert it, or give --kind multi_label if a text has several labels"
            )
    texts = [str(value) for value in values]
    _refuse_half_characters(texts, column, source)
    missing = values.isna().to_numpy() | np.array([not text.strip() for text in texts])
    if not missing.any():
        return texts
    if missing_as is None:
        rows = ", ".join(str(row + 1) for row in missing.nonzero()[0][:5])
        raise InvalidData(
            f"column {column} must be filled in every row, but {one_line(source)} has empty cells in rows {rows}; "
            "fill or remove them"
        )
    return [missing_as if gap else text for gap, text in zip(missing, texts, strict=True)]


def _refuse_half_characters(texts: Sequence[str], column: str, source: object) -> None:
    """Refuse halves of surrogate pairs: JSON may hold them, where a text was cut, but no tokenizer reads them."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        for row, text in enumerate(texts, start=1):
            if half := next((sign for sign in text if "\ud800" <= sign <= "\udfff"), None):
                raise InvalidData(
                    f"column {column} must hold whole characters, but row {row} of {one_line(source)} holds half "
                    f"of one, {half!a}; repair or remove the row"
                ) from None


def read_frame(path: Path, header: Sequence[str] | None = None) -> "pd.DataFrame":
    """Return a file as it is, whatever its cells hold.

    Args:
        path: the file, in any format of FORMATS.
        header: names of all columns of a file without a header line.

    Raises:
        InvalidData: the file is unreadable or not UTF-8, or its ending is none of FORMATS.
    """
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    if ending not in FORMATS:
        raise InvalidData(
            f"the data file must end in {', '.join(FORMATS)}, but got {one_line(path.name)}; convert or rename it"
        )
    try:
        if ending == ".jsonl":
            return _read_jsonl(path)
        if ending == ".parquet":
            return _read_parquet(path)
        return _read_separated(path, header, "," if ending == ".csv" else "\t")
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{one_line(path)} must be UTF-8, but byte 0x{error.object[error.start]:02x} in it is not; convert it first"
        ) from error
    except InvalidData:
        raise
    # what pandas and pyarrow raise for files that they cannot read
    except (ValueError, TypeError, NotImplementedError, OverflowError, OSError, EOFError, zlib.error) as error:
        raise InvalidData(
            f"{one_line(path)} must be readable as {ending[1:]}, but got {one_line(error)}; repair or convert it"
        ) from error


def _read_jsonl(path: Path) -> "pd.DataFrame":
    import pandas as pd  # slow to import

    opened = gzip.open if path.suffix == ".gz" else open
    rows = []
    with opened(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{error.msg} in line {number}, column {error.colno}") from error
            except RecursionError as error:
                raise ValueError(f"too many brackets inside of each other in line {number}") from error
            except ValueError as error:
                raise ValueError(f"a number of too many digits in line {number}") from error
            if not isinstance(row, dict):
                raise ValueError(f"no object in line {number}")
            rows.append(row)
    # dtype object, because pandas would turn integers in a column with gaps into floats
    return pd.DataFrame(rows, dtype=object)


def _read_parquet(path: Path) -> "pd.DataFrame":
    import pyarrow.parquet as parquet  # slow to import

    content = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path
    # what pandas noted in the file may take columns out of it as row names
    frame: pd.DataFrame = parquet.read_table(content).to_pandas(ignore_metadata=True)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"the column {twice} twice")
    return frame


def _read_separated(path: Path, header: Sequence[str] | None, separator: str) -> "pd.DataFrame":
    import pandas as pd  # slow to import

    frame = pd.read_csv(
        path,
        sep=separator,
        quoting=csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE,
        names=list(header) if header else None,
        header=None if header else 0,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8",
    )
    # if lines have more cells than the header, pandas takes the first cells as row names and shifts every column
    if not isinstance(frame.index, pd.RangeIndex):
        raise InvalidData(
            f"the lines of {one_line(path)} must hold as many cells as its header names, but got more; "
            "quote cells that hold the separator"
        )
    return frame
