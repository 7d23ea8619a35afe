"""Questions from files: SQuAD's JSON, of 1.1 and of 2.0, or one question a line, and checks of what they hold."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidData
from whet.tasks.files import listed
from whet.tasks.frames import Frame, Source
from whet.tasks.questions import AcceptedAnswers, Questions
from whet.utils.inputs import one_line, require_file

__all__ = ["COLUMNS", "Columns", "Question", "as_questions", "checked_questions", "read_questions", "repeated_ids"]


class Question(NamedTuple):
    """One question of a file."""

    id: str
    """As the file has it; empty if it has none."""
    question: str
    context: str
    answers: AcceptedAnswers | None
    """None if the file has none, not even that there is no answer."""
    title: str = ""
    """Of the article that the context is from."""


class Columns(NamedTuple):
    """The keys of files with one question a line."""

    question: str = "question"
    context: str = "context"
    answers: str = "answers"


COLUMNS = Columns()
"""Those of SQuAD on the hub."""


def read_questions(source: Source, columns: Columns = COLUMNS) -> list[Question]:
    """Return the questions of a file or a table, after `checked_questions`.

    Args:
        source: a file that ends in .json, in SQuAD's format, or in .jsonl or .parquet, with one question a row; each
            may be followed by .gz; or a table in memory.
        columns: the names of the columns of rows.

    Raises:
        InvalidData: the file cannot be read or is of another format, or a question is not as it must be.
    """
    if isinstance(source, Frame):
        return checked_questions(_of_rows(source.rows(), columns, source), source)
    require_file(source, what="the data file", error=InvalidData)
    endings = [ending.lower() for ending in source.suffixes if ending != ".gz"]
    readers: Mapping[str, Callable[[Path], Iterable[Question]]] = {
        ".json": lambda path: _of_squad(_parsed(path, _text(path)), path),
        ".jsonl": lambda path: _of_rows(_lines(path), columns, path),
        ".parquet": lambda path: _of_rows(_parquet_rows(path), columns, path),
    }
    reader = readers.get(endings[-1] if endings else "")
    if reader is None:
        raise InvalidData(
            f"a file of questions must end in {', '.join(readers)}, but got {one_line(source.name)}; convert it to "
            "SQuAD's JSON, or to one question a line"
        )
    return checked_questions(reader(source), source)


def as_questions(questions: Sequence[Question], *, source: object, labelled: bool = True) -> Questions:
    """Return questions as examples.

    Args:
        questions: in the order of the examples.
        source: where they are from, for messages.
        labelled: whether answers are read; without them, every question counts as one that has none.

    Raises:
        InvalidData: a question has no answers, not even that there is none.
    """
    lacking = [one for one in questions if one.answers is None]
    if labelled and lacking:
        raise InvalidData(
            f"each question must have answers, an empty list if its context has none, but {len(lacking):,} of "
            f"{len(questions):,} in {one_line(source)} lack them, first {_name(lacking[0])}; add them"
        )
    return Questions(
        [one.question for one in questions],
        [(one.answers or ()) if labelled else () for one in questions],
        [one.context for one in questions],
    )


def checked_questions(questions: Iterable[Question], source: object) -> list[Question]:
    """Return the questions if they are as they must be.

    Raises:
        InvalidData: there are none; a question or context is empty or holds half a character; an answer does not lie
            in its context where it is said to start; or a question is there twice.
    """
    found = list(questions)
    shown = one_line(source)
    if not found:
        raise InvalidData(f"the data file must hold questions, but {shown} has none; write it again")
    faults: Mapping[str, Callable[[Question], bool]] = {
        "each question must have text": lambda one: not one.question.strip(),
        "each question must have a context": lambda one: not one.context.strip(),
        "questions and contexts must hold whole characters": _holds_half_character,
        "each answer must lie in its context where answer_start says": _is_misplaced,
    }
    for rule, breaks in faults.items():
        broken = [one for one in found if breaks(one)]
        if broken:
            raise InvalidData(
                f"{rule}, but {len(broken):,} of {len(found):,} in {shown} do not, first {_name(broken[0])}; correct "
                "or remove them"
            )
    counts = Counter((one.id, one.question, one.context) for one in found if one.id)
    twice = [key[0] for key, count in counts.items() if count > 1]
    if twice:
        raise InvalidData(
            f"each question must be there once, but {shown} has {listed([one_line(id, 40) for id in twice], 3)} "
            "several times; remove the copies"
        )
    return found


def repeated_ids(questions: Sequence[Question]) -> int:
    """Return how many questions have the id of an earlier one."""
    ids = [one.id for one in questions if one.id]
    return len(ids) - len(set(ids))


def _name(question: Question) -> str:
    return one_line(question.id or question.question or "one without id and text", 60)


def _is_misplaced(question: Question) -> bool:
    return any(
        not text or start < 0 or question.context[start : start + len(text)] != text
        for text, start in question.answers or ()
    )


def _holds_half_character(question: Question) -> bool:
    try:
        f"{question.question}{question.context}".encode()
    except UnicodeEncodeError:
        return True
    return False


def _of_squad(content: Any, path: Path) -> Iterator[Question]:
    """The questions of SQuAD's JSON: articles of paragraphs of questions."""
    for article in _items(content, "data", path):
        for paragraph in _items(article, "paragraphs", path):
            for row in _items(paragraph, "qas", path):
                context = {"context": paragraph.get("context")}
                yield _question({**row, **context}, COLUMNS, path, title=str(article.get("title", "")))


def _of_rows(rows: Iterable[Mapping[str, Any]], columns: Columns, source: object) -> Iterator[Question]:
    for row in rows:
        yield _question(row, columns, source, title=str(row.get("title", "")))


def _items(value: Any, key: str, path: Path) -> list[Any]:
    items = value.get(key) if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidData(
            f"a JSON file of questions must have SQuAD's lists data, paragraphs and qas of objects, but "
            f"{one_line(path)} has no such list {key}; give SQuAD's format, or one question a line in a .jsonl file"
        )
    return items


def _question(row: Mapping[str, Any], columns: Columns, source: object, *, title: str) -> Question:
    texts = [row.get(column) for column in (columns.question, columns.context)]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidData(
            f"each question must have text as {columns.question} and {columns.context}, but {one_line(source)} has a "
            f"row with {listed([str(key) for key in row]) or 'nothing'}; correct it, or give the names of its columns"
        )
    question = Question(_id(row.get("id")), str(texts[0]), str(texts[1]), None, title)
    return question._replace(answers=_answers(row, columns.answers, question, source))


def _id(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _answers(row: Mapping[str, Any], column: str, question: Question, source: object) -> AcceptedAnswers | None:
    """The answers of a row: a list of objects as in SQuAD, or an object of lists as on the hub; None without any."""
    given = _plain(row.get(column))
    impossible = row.get("is_impossible") is True
    if isinstance(given, dict) and {"text", "answer_start"} <= given.keys():
        texts, starts = _plain(given["text"]), _plain(given["answer_start"])
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(given, list):
        if impossible:
            return ()
        if given is None or given != given:  # a table's empty cell is NaN
            return None
        raise _malformed(question, column, source)
    answers = []
    for answer in given:
        text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (None, None)
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            raise _malformed(question, column, source)
        answers.append((text, start))
    if impossible and answers:
        raise InvalidData(
            f"a question with is_impossible must have no answers, but {_name(question)} in {one_line(source)} has "
            f"{len(answers)}; remove one of the two"
        )
    # an answer without text stands for one that is kept secret, as in data for competitions
    return tuple(answers) if not answers or any(text for text, _ in answers) else None


def _malformed(question: Question, column: str, source: object) -> InvalidData:
    return InvalidData(
        f"{column} must be a list of objects with text and answer_start, but those of {_name(question)} in "
        f"{one_line(source)} are none; write them as SQuAD does"
    )


def _plain(value: Any) -> Any:
    """A value with lists where tables have arrays."""
    return value.tolist() if hasattr(value, "tolist") else value


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{one_line(path)} must be UTF-8, but byte 0x{error.object[error.start]:02x} in it is not; convert it first"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            row = _parsed(path, line)
            if not isinstance(row, dict):
                raise _unreadable(path, ValueError(f"no object in line {number}"))
            yield row


def _parquet_rows(path: Path) -> list[Mapping[str, Any]]:
    import pyarrow.parquet as parquet  # slow to import

    try:
        rows: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
    except (ValueError, OSError, NotImplementedError) as error:  # what pyarrow raises for files that it cannot read
        raise _unreadable(path, error) from error
    return rows


def _unreadable(path: Path, error: Exception) -> InvalidData:
    return InvalidData(
        f"{one_line(path)} must be a readable file of questions, but {one_line(error, 200)}; repair or write it again"
    )
