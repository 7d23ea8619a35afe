"""Reads CSV, TSV, JSONL and Parquet files, also packed with gzip, and parses columns of labels."""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whet.errors import InvalidData

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "class_indices", "finite_scores", "listed", "read_table"]

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
"""File endings that can be read; each may be followed by .gz. A .txt file is read as TSV."""


def read_table(
    path: Path, columns: Sequence[str], *, header: Sequence[str] | None = None, missing_as: str | None = None
) -> Mapping[str, list[str]]:
    """Return the named columns of a file, each a list of strings with one per row.

    Args:
        path: the file, whose ending gives the format. Quotes are literal in TSV, as in the GLUE files, and quote cells
            in CSV.
        columns: names of the columns to read.
        header: names of all columns of a file without a header line.
        missing_as: text that replaces an empty cell; None makes empty cells an error.

    Raises:
        InvalidData: the file is missing, empty, unreadable or not UTF-8, or lacks a column.
    """
    if not path.is_file():
        raise InvalidData(f"the data file must exist, but got {path}; check the path")
    if path.stat().st_size == 0:
        raise InvalidData(f"the data file must hold rows, but {path} is empty; write it again")
    frame = _read_frame(path, header)
    if frame.empty:
        raise InvalidData(f"the data file must hold rows, but {path} has none; write it again")
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise InvalidData(
            f"the columns {', '.join(absent)} must be in {path}, "
            f"but got {', '.join(map(str, frame.columns))}; give the names of columns in the file"
        )
    return {column: _strings(frame[column], column, path, missing_as) for column in columns}


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


def _strings(values: "pd.Series", column: str, path: Path, missing_as: str | None) -> list[str]:
    missing = values.isna() | (values.astype(str).str.strip() == "")
    if missing.any():
        if missing_as is None:
            rows = ", ".join(str(row + 1) for row in missing.to_numpy().nonzero()[0][:5])
            raise InvalidData(
                f"column {column} must be filled in every row, but {path} has empty cells in rows {rows}; "
                "fill or remove them"
            )
        values = values.where(~missing, missing_as)
    return [str(value) for value in values]


def _read_frame(path: Path, header: Sequence[str] | None) -> "pd.DataFrame":
    import pandas as pd  # slow to import

    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    if ending not in FORMATS:
        raise InvalidData(f"the data file must end in {', '.join(FORMATS)}, but got {path.name}; convert or rename it")
    try:
        if ending == ".jsonl":
            return _read_jsonl(path)
        if ending == ".parquet":
            packed = path.suffix == ".gz"
            return pd.read_parquet(io.BytesIO(gzip.decompress(path.read_bytes())) if packed else path)
        return _read_separated(path, header, "," if ending == ".csv" else "\t")
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{path} must be UTF-8, but byte 0x{error.object[error.start]:02x} in it is not; convert it first"
        ) from error
    except InvalidData:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InvalidData(f"{path} must be readable as {ending[1:]}, but got {reason}; repair or convert it") from error


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
            if not isinstance(row, dict):
                raise ValueError(f"no object in line {number}")
            rows.append(row)
    # dtype object, because pandas would turn integers in a column with gaps into floats
    return pd.DataFrame(rows, dtype=object)


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
            f"the lines of {path} must hold as many cells as its header names, but got more; "
            "quote cells that hold the separator"
        )
    return frame
