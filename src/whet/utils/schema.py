"""JSON that whet wrote and reads back, checked against a schema: a pydantic model or a dataclass.

Such a file may have been cut short, edited or made by somebody else. What does not fit is refused in one sentence; keys
that this version does not know are those of another version, and are no error.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from whet.errors import WhetError
from whet.utils.inputs import one_line

__all__ = ["from_json", "from_values"]

_Schema = TypeVar("_Schema")


def from_json(schema: type[_Schema], text: str | bytes, *, what: str, error: type[WhetError], remedy: str) -> _Schema:
    """Return JSON as an instance of its schema.

    Args:
        schema: a pydantic model, or a dataclass.
        text: the JSON; deep nesting and bytes that are not UTF-8 are refused as any other fault is.
        what: names the text in the message, such as "runs/mrpc/manifest.json".
        error: what to raise.
        remedy: ends the message, such as "copy it again".

    Raises:
        WhetError: of the type `error`: the text is no JSON, or does not fit the schema.
    """
    try:
        value: _Schema = _adapter(schema).validate_json(text)  # type: ignore[arg-type]  # classes can be hashed
        return value
    except ValidationError as problem:
        raise error(f"{what} must be as whet wrote it, but {_first(problem)}; {remedy}") from problem


def from_values(schema: type[_Schema], values: Any, *, what: str, error: type[WhetError], remedy: str) -> _Schema:
    """Return JSON values as an instance of their schema; see `from_json`.

    Raises:
        WhetError: of the type `error`: the values do not fit the schema.
    """
    try:
        value: _Schema = _adapter(schema).validate_python(values)  # type: ignore[arg-type]  # see above
        return value
    except ValidationError as problem:
        raise error(f"{what} must be as whet wrote it, but {_first(problem)}; {remedy}") from problem


@cache
def _adapter(schema: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _first(problem: ValidationError) -> str:
    """Return the first thing that is wrong, such as `files.config.json: Input should be a valid string`."""
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    message = one_line(first["msg"].removeprefix("Value error, "), 300)
    return f"{_place(first['loc'])}: {message}" if first["loc"] else message


def _place(parts: Iterable[int | str]) -> str:
    return one_line(".".join(map(str, parts)), 100)
