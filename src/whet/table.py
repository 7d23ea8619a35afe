"""Read one data file into text columns: CSV, TSV, JSONL or Parquet, also compressed with gzip."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from whet.errors import InvalidData

__all__ = ["FORMATS", "read_table"]

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
"""File endings that can be read; each may be followed by .gz."""


def read_table(
    path: Path, columns: Sequence[str], *, header: Sequence[str] | None = None, missing_as: str | None = None
) -> Mapping[str, list[str]]:
    """Return the named columns of a file as strings, row by row.

    Args:
        path: the file; its ending says the format. In TSV, quotes are literal, as in the GLUE files; in CSV they quote.
        columns: the columns wanted.
        header: the column names of a file that has no header line.
        missing_as: the text that stands for an empty cell; without it, an empty cell is an error.

    Raises:
        InvalidData: the file is missing, empty, unreadable, not UTF-8, or lacks a column.
    """
    if not path.is_file():
        raise InvalidData(f"the data file must exist, but got {path}; check the path")
    if path.stat().st_size == 0:
        raise InvalidData(f"the data file must hold rows, but {path} is empty")
    frame = _read_frame(path, header)
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise InvalidData(
            f"the columns {', '.join(absent)} must be in {path}, "
            f"but got {', '.join(map(str, frame.columns))}; name the right ones"
        )
    if frame.empty:
        raise InvalidData(f"the data file must hold rows, but {path} has only a header")
    return {column: _strings(frame[column], column, path, missing_as) for column in columns}


def _strings(values: pd.Series, column: str, path: Path, missing_as: str | None) -> list[str]:
    missing = values.isna() | (values.astype(str).str.strip() == "")
    if missing.any():
        if missing_as is None:
            rows = ", ".join(str(row + 1) for row in missing.to_numpy().nonzero()[0][:5])
            raise InvalidData(
                f"column {column} must be filled in every row, but {path} has empty cells in rows {rows}"
            )
        values = values.where(~missing, missing_as)
    return [str(value) for value in values]


def _read_frame(path: Path, header: Sequence[str] | None) -> pd.DataFrame:
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    try:
        if ending in (".csv", ".tsv"):
            return pd.read_csv(
                path,
                sep="\t" if ending == ".tsv" else ",",
                quoting=csv.QUOTE_NONE if ending == ".tsv" else csv.QUOTE_MINIMAL,
                names=list(header) if header else None,
                header=None if header else 0,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8",
            )
        if ending == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False, convert_dates=False, encoding="utf-8")
        if ending == ".parquet":
            return pd.read_parquet(path)
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path} must be UTF-8, but byte {error.start} is not; convert it first") from error
    except (ValueError, OSError) as error:
        raise InvalidData(f"{path} must be readable as {ending[1:]}, but it is not: {error}") from error
    raise InvalidData(f"the data file must end in {', '.join(FORMATS)}, but got {path.name}")
