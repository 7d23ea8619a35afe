"""Reads sentences of words with their tags: CoNLL columns, rows with lists, and folders that `datasets` saved.

A file of columns has one word a line, first, with its tag last; an empty line ends a sentence. A table has a sentence a
row: a list of words and a list of tags, or both as text with spaces.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidData
from whet.tasks.files import class_indices, listed, read_frame
from whet.tasks.frames import Frame, Source
from whet.tasks.tags import iob2, is_iob, misplaced
from whet.tasks.words import TaggedWords
from whet.utils.inputs import one_line, require_file

__all__ = [
    "COLUMN_FORMATS",
    "ENTITY_METRICS",
    "Sentences",
    "indexed",
    "read_columns",
    "read_tagged",
    "said_of",
    "unlabeled",
]

ENTITY_METRICS = ("entity_f1", "entity_precision", "entity_recall", "entity_f1_by_type")
"""Quality metrics of a task with entities, the main one first."""

COLUMN_FORMATS = (".conll", ".iob", ".iob2", ".bio", ".txt")
"""Endings of files of columns; each may be followed by .gz."""
_WORDS = ("words", "tokens")
_TAGS = ("tags", "ner_tags", "labels")
"""Usual names of columns, for tables without those that were asked for."""
_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")


class Sentences(NamedTuple):
    """What was read."""

    words: list[tuple[str, ...]]
    """The words of each sentence."""
    tags: list[tuple[str, ...]]
    """As many tags; empty lists if none were asked for."""


def read_tagged(source: Source, *, text: str, label: str, labeled: bool = True) -> Sentences:
    """Return the sentences of a user's own data.

    Args:
        source: a file of columns, a table, a folder from `Dataset.save_to_disk`, or a table in memory.
        text: name of a table's column of words; the usual names are looked for too.
        label: name of its column of tags; likewise.
        labeled: whether tags are read.

    Raises:
        InvalidData: the source cannot be read, or its tags do not fit its words.
    """
    if isinstance(source, Path) and source.is_dir():
        source = _saved_dataset(source)
    if isinstance(source, Frame):
        return _of_table(source.table, source, text, label, labeled)
    endings = [ending.lower() for ending in source.suffixes if ending != ".gz"]
    if endings and endings[-1] in COLUMN_FORMATS:
        return read_columns(source, labeled=labeled)
    require_file(source, what="the data file", error=InvalidData)
    return _of_table(read_frame(source), source, text, label, labeled)


def indexed(sentences: Sentences, names: Sequence[str], *, source: object) -> TaggedWords:
    """Return sentences with their tags as indices into names; tags of IOB1 become those of IOB2 if the names are.

    Raises:
        InvalidData: a tag is none of the names.
    """
    tags = [iob2(tags) for tags in sentences.tags] if is_iob(names) else sentences.tags
    indices = iter(class_indices([tag for one in tags for tag in one], names, source=one_line(source)))
    return TaggedWords(sentences.words, [tuple(next(indices) for _ in one) for one in tags])


def unlabeled(sentences: Sentences) -> TaggedWords:
    """Return sentences for what reads no tags."""
    return TaggedWords(sentences.words, [None] * len(sentences.words))


def said_of(sentences: Sentences, source: object) -> str:
    """Return what to tell the user of tags that break the rules of IOB2; empty if none do."""
    count = misplaced(sentences.tags) if is_iob({tag for tags in sentences.tags for tag in tags}) else 0
    if count == 0:
        return ""
    return (
        f"tags that open no entity, such as I-PER after O, in {one_line(source)}: {count}; they are read as if they "
        "did, as the official scripts do"
    )


def read_columns(path: Path, *, labeled: bool = True) -> Sentences:
    """Return the sentences of a file of columns; lines that start a document are no sentences.

    Args:
        path: the file, maybe packed with gzip.
        labeled: whether tags are read.

    Raises:
        InvalidData: the file cannot be read, holds no sentence, or a line lacks a column.
    """
    require_file(path, what="the data file", error=InvalidData)
    lines = [(number, _columns(line)) for number, line in _lines(path)]
    # a line of another width that starts so is a comment
    width = next((len(columns) for _, columns in lines if columns and not columns[0].startswith("#")), 0)
    sentences: list[list[list[str]]] = [[]]
    for number, columns in lines:
        if not columns:
            sentences.append([])
            continue
        if columns[0] == _DOCUMENT or (columns[0].startswith("#") and len(columns) != width):
            continue
        if len(columns) != width or (labeled and width < 2):
            wanted = f"{max(width, 2)} columns, the word first and its tag last" if labeled else f"{width} columns"
            raise InvalidData(
                f"each line of {one_line(path)} must hold {wanted}, but line {number} holds {len(columns)}; correct it"
            )
        sentences[-1].append(columns)
    kept = [rows for rows in sentences if rows]
    if not kept:
        raise InvalidData(f"the data file must hold sentences, but {one_line(path)} has none; write it again")
    words = [tuple(row[0] for row in rows) for rows in kept]
    return Sentences(words, [tuple(row[-1].strip() for row in rows) if labeled else () for rows in kept])


def _columns(line: str) -> list[str]:
    """The columns of a line; none if it ends a sentence, as a lone tab does too."""
    if not line.strip():
        return []
    return line.split("\t") if "\t" in line else _BLANKS.split(line.strip())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{one_line(path)} must be UTF-8, but byte 0x{error.object[error.start]:02x} in it is not; convert it first"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidData(
            f"{one_line(path)} must be readable, but got {one_line(error)}; repair or convert it"
        ) from error


def _saved_dataset(folder: Path) -> Frame:
    import datasets  # slow to import

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InvalidData(
            f"a folder of data must be one that Dataset.save_to_disk wrote, but {one_line(folder)} is not: "
            f"{one_line(error, 200)}; give that, or a file"
        ) from error
    if isinstance(saved, datasets.DatasetDict):
        raise InvalidData(
            f"a folder of data must hold one split, but {one_line(folder)} holds {listed(list(saved))}; "
            f"give one of them, such as {one_line(folder / next(iter(saved)))}"
        )
    return Frame(saved, one_line(folder))


def _of_table(table: Any, source: object, text: str, label: str, labeled: bool) -> Sentences:
    frame = table.to_pandas() if hasattr(table, "to_pandas") else table
    if frame.empty:
        raise InvalidData(f"the data file must hold rows, but {one_line(source)} has none; write it again")
    columns = [str(name) for name in frame.columns]
    words_of = _column(columns, (text, *_WORDS), "words", source)
    words = [_texts(cell, words_of, row, source) for row, cell in enumerate(frame[words_of], start=1)]
    if not labeled:
        return Sentences(words, [()] * len(words))
    tags_of = _column(columns, (label, *_TAGS), "tags", source)
    names = _names_of_numbers(table, tags_of)
    tags = [_tags(cell, names, tags_of, row, source) for row, cell in enumerate(frame[tags_of], start=1)]
    for row, (one, other) in enumerate(zip(words, tags, strict=True), start=1):
        if len(one) != len(other):
            raise InvalidData(
                f"each word must have one tag, but row {row} of {one_line(source)} holds {len(one)} words and "
                f"{len(other)} tags; correct it"
            )
    return Sentences(words, tags)


def _column(columns: Sequence[str], names: Sequence[str], what: str, source: object) -> str:
    known = [name for name in names if name in columns]
    if not known:
        raise InvalidData(
            f"the column of {what} must be one of {one_line(source)}, which has {one_line(listed(columns))}, but got "
            f"{names[0]}; give its name"
        )
    return known[0]


def _cells(cell: Any) -> list[Any]:
    """A list, or a text with spaces."""
    if isinstance(cell, str):
        return cell.split()
    return list(cell) if hasattr(cell, "__iter__") and not isinstance(cell, dict | bytes) else []


def _texts(cell: Any, column: str, row: int, source: object) -> tuple[str, ...]:
    words = _cells(cell)
    whole = all(isinstance(word, str) and _is_encodable(word) for word in words)
    if not words or not whole:
        raise InvalidData(
            f"column {column} must hold a list of words in every row, but row {row} of {one_line(source)} holds "
            f"{one_line(repr(cell), 60)}; correct or remove it"
        )
    return tuple(words)


def _tags(cell: Any, names: Sequence[str] | None, column: str, row: int, source: object) -> tuple[str, ...]:
    tags = _cells(cell)
    if names is not None:
        tags = [names[int(tag)] if str(tag).isdecimal() and int(tag) < len(names) else tag for tag in tags]
    wrong = [tag for tag in tags if not isinstance(tag, str) or not tag.strip()]
    if wrong:
        raise InvalidData(
            f"tags must be names, such as B-PER, but column {column} holds {one_line(repr(wrong[0]), 40)} in row {row} "
            f"of {one_line(source)}; write names, or give a folder from Dataset.save_to_disk, which has them"
        )
    return tuple(tags)


def _is_encodable(word: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in word)


def _names_of_numbers(table: Any, column: str) -> tuple[str, ...] | None:
    """The names of the tags of a column that holds their numbers, as a Dataset knows them."""
    features = getattr(table, "features", None) if hasattr(table, "to_pandas") else None
    names = None if features is None else getattr(getattr(features[column], "feature", None), "names", None)
    return None if names is None else tuple(map(str, names))
