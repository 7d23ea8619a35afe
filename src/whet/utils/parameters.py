"""Parameters of a dataclass, described once by their annotations: checked on construction, shown by `whet methods`.

Bounds are those of annotated-types, as in `Annotated[float, Interval(gt=0, le=1)]`; what a parameter means is the
docstring under its field. pydantic 2 reads both, but was tried and left: of a class that derives from another it finds
the docstrings of its own fields only, its errors have to be put into our sentences kind by kind, and the table for
people stays ours.
"""

import ast
import dataclasses
import inspect
import math
import operator
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from whet.errors import InvalidParameter
from whet.utils.inputs import one_line

__all__ = [
    "Must",
    "Parameter",
    "check",
    "described",
    "fits",
    "parameter_of",
    "parameters",
    "require",
    "require_one",
    "shown",
    "whole_number_in",
]

_HOLDS = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
"""What each bound of annotated-types asks for."""
_LEFT, _RIGHT = {"gt": "<", "ge": "<="}, {"lt": "<", "le": "<="}
"""How the bounds on either side are written."""
_LARGEST = 2**63 - 1
"""Whole numbers beyond it fit into no tensor."""


class Must(NamedTuple):
    """What must hold of a value besides its bounds; stands in an annotation as they do."""

    holds: Callable[[Any], bool]
    """Whether it does."""
    words: str
    """What the value must be, such as "one that torch can use"."""


class Parameter(NamedTuple):
    """A field of a dataclass, with its annotation taken apart."""

    name: str
    """Of the field."""
    type: Any
    """Without None and bounds."""
    bounds: dict[str, float]
    """By their names in annotated-types, such as `gt`."""
    optional: bool
    """Whether it may be None."""
    default: Any
    """None also where a value must be given."""
    meaning: str
    """The docstring under the field."""
    musts: tuple[Must, ...] = ()
    """More that must hold."""

    @property
    def choices(self) -> tuple[Any, ...]:
        """All allowed values, where there are only some."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def kind(self) -> str:
        """The name of its type, or `choice`."""
        return "choice" if self.choices else getattr(self.type, "__name__", str(self.type))

    @property
    def stated(self) -> str:
        """Its bounds or choices in words, such as `0 < keep <= 1`."""
        if self.choices or not self.bounds:
            return " | ".join(map(str, self.choices))
        left = [f"{_plain(self.bounds[side])} {sign} " for side, sign in _LEFT.items() if side in self.bounds]
        right = [f" {sign} {_plain(self.bounds[side])}" for side, sign in _RIGHT.items() if side in self.bounds]
        return "".join([*left, self.name, *right])

    @property
    def advice(self) -> str:
        """What to give instead of a wrong value."""
        if self.choices:
            return "choose one of these"
        named = re.search(r"e\.g\. (\{[^}]*\}|[-\w.*/]*\w)", self.meaning)
        example = self.default if self.default is not None else named and named[1]
        if example in (None, ""):
            return "leave it out, or correct it" if self.optional else "correct it"
        return f"give one such as {self.name}={example}"

    def to_dict(self) -> dict[str, Any]:
        """Return what people want to know of it, as JSON values."""
        return {name: getattr(self, name) for name in ("name", "kind", "stated", "default", "meaning")}

    def broken(self, value: Any) -> str | None:
        """Return what must hold of a value and does not, or None."""
        if self.optional and value is None:
            return None
        if not fits(value, self.type):
            return f"{self.name} must be {described(self.type)}"
        if not _within(value, self.bounds):
            return f"{self.stated} must hold"
        for must in self.musts:
            if not must.holds(value):
                return f"{self.name} must be {must.words}"
        for number in _numbers(value):
            if isinstance(number, float) and not math.isfinite(number):
                return f"{self.name} must be finite"
            if isinstance(number, int) and abs(number) > _LARGEST:
                return f"{self.name} must fit into 64 bits"
        return None


def check(instance: Any) -> None:
    """Check every annotated field of a dataclass instance.

    Raises:
        InvalidParameter: a value has the wrong type, is outside its bounds, or is none of the choices.
    """
    for known in parameters(type(instance)):  # type: ignore[arg-type]  # classes can be hashed
        value = getattr(instance, known.name)
        if broken := known.broken(value):
            raise InvalidParameter(f"{broken}, but got {known.name}={shown(value)}; {known.advice}")


def shown(value: Any) -> str:
    """Return a value for a message: as Python writes it, on one line, and not too long; any value has such a text."""
    try:
        return one_line(repr(value), 100)
    except (ValueError, RecursionError):  # more digits, or brackets inside of each other, than Python writes
        return f"one of type {type(value).__name__}"


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type, inside of mappings and lists too.

    A list is accepted where a tuple is expected, because files hold lists; a text is never a sequence of texts. What
    is not understood of a hint is not checked.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is NoneType:
        return value is None
    if origin is Annotated:
        return fits(value, parts[0])
    if origin in (UnionType, Union):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(_has_type(value, type(choice)) and value == choice for choice in parts)
    if origin in (tuple, list, Sequence):
        many = isinstance(value, Sequence if origin is Sequence else list | tuple) and not isinstance(
            value, str | bytes
        )
        if origin is tuple and parts[-1] is not Ellipsis:
            return many and len(value) == len(parts) and all(map(fits, value, parts))
        return many and all(fits(inner, parts[0]) for inner in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if hint is Callable or origin is Callable:
        return callable(value)
    return _has_type(value, origin or hint) if isinstance(origin or hint, type) else True


def described(hint: Any) -> str:
    """Return an annotated type in words, such as "of type int" or "a list of text"."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return described(parts[0])
    if origin in (UnionType, Union):
        return " or ".join(dict.fromkeys(described(part) for part in parts if part is not NoneType))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (tuple, list, Sequence):
        several = len(parts) > 1 and parts[-1] is not Ellipsis
        return f"{len(parts)} values" if several else f"a list of {_plural(parts[0])}"
    if origin in (dict, Mapping):
        return f"a mapping from {_plural(parts[0])} to {_plural(parts[1])}"
    if hint is Callable or origin is Callable:
        return "a function"
    return f"of type {getattr(origin or hint, '__name__', hint)}"


def whole_number_in(text: str) -> int | None:
    """Return the whole number that a text is, in the digits 0 to 9, or None; 18 digits are the most."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def require_one(given: Mapping[str, Any], *, such_as: str) -> None:
    """Check that exactly one of some parameters is given.

    Args:
        given: their values by name; None is not given.
        such_as: what to name in the error.

    Raises:
        InvalidParameter: none, or more than one.
    """
    if sum(value is not None for value in given.values()) != 1:
        stated = " and ".join(f"{name}={value}" for name, value in given.items())
        raise InvalidParameter(f"one of {' and '.join(given)} must be given, but got {stated}; such as {such_as}")


@cache
def parameters(owner: type) -> tuple[Parameter, ...]:
    """Return the parameters of a dataclass with their bounds and docstrings, those of its bases first."""
    hints, meanings = get_type_hints(owner, include_extras=True), _meanings(owner)
    fields = dataclasses.fields(owner)
    defaults = {field.name: None if field.default is dataclasses.MISSING else field.default for field in fields}
    return tuple(parameter_of(name, hints[name], default, meanings.get(name, "")) for name, default in defaults.items())


def _plain(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _plural(hint: Any) -> str:
    names = {str: "text", int: "numbers", float: "numbers", Path: "paths"}
    parts = get_args(hint) or (hint,)
    return " or ".join(dict.fromkeys(names.get(part, described(part)) for part in parts))


def _has_type(value: Any, wanted: type) -> bool:
    """Whether a value is of a type; a bool is no number, but a whole number is a float."""
    if wanted in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if wanted is float else wanted)


def _within(value: Any, bounds: Mapping[str, float]) -> bool:
    return all(_HOLDS[side](value, limit) for side, limit in bounds.items())


def parameter_of(name: str, hint: Any, default: Any = None, meaning: str = "") -> Parameter:
    """Return a parameter, given its annotation with bounds and None."""
    hint, bounds, musts = _taken_apart(hint)
    # (typing spells the union of a Literal and None in its own way)
    union = get_args(hint) if get_origin(hint) in (UnionType, Union) else ()
    optional = len(union) > 1 and NoneType in union
    if optional:
        others = [part for part in union if part is not NoneType]
        hint, inner, more = _taken_apart(others[0] if len(others) == 1 else Union[tuple(others)])  # noqa: UP007
        bounds, musts = bounds | inner, (*musts, *more)
    return Parameter(name, hint, bounds, optional, default, meaning, musts)


def require(value: Any, hint: Any, *, name: str, advice: str | None = None) -> None:
    """Check one value by an annotation.

    Args:
        value: the value.
        hint: its annotation, with bounds.
        name: of the value, for the message.
        advice: what to do, for the message; an example if None.

    Raises:
        InvalidParameter: it has the wrong type or is outside its bounds.
    """
    parameter = parameter_of(name, hint)
    if broken := parameter.broken(value):
        raise InvalidParameter(f"{broken}, but got {name}={shown(value)}; {advice or parameter.advice}")


class _Annotation(NamedTuple):
    """An annotation without its bounds, and those."""

    bare: Any
    bounds: dict[str, float]
    musts: tuple[Must, ...]


def _taken_apart(hint: Any) -> _Annotation:
    if get_origin(hint) is not Annotated:
        return _Annotation(hint, {}, ())
    bare, *extras = get_args(hint)
    sides = [(side, getattr(extra, side, None)) for extra in extras for side in _HOLDS]
    bounds = {side: limit for side, limit in sides if limit is not None}
    return _Annotation(bare, bounds, tuple(extra for extra in extras if isinstance(extra, Must)))


def _numbers(value: Any) -> list[Any]:
    """The numbers in a value."""
    if isinstance(value, Mapping):
        return [number for inner in value.values() for number in _numbers(inner)]
    if isinstance(value, list | tuple):
        return [number for inner in value for number in _numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def _meanings(owner: type) -> dict[str, str]:
    """The docstring under each field, of the class and its bases."""
    meanings: dict[str, str] = {}
    for cls in reversed(owner.__mro__[:-1]):
        if dataclasses.is_dataclass(cls):
            statements = _body(cls)
            for field, text in pairwise(statements):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                    meanings[field.target.id] = " ".join(text.value.value.split())  # type: ignore[attr-defined]
    return meanings


@cache  # a base is asked for each of its classes, and finding its source takes time
def _body(cls: type) -> list[ast.stmt]:
    """The statements of a class; none, where it was defined in a notebook's cell or by exec."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return []
    return ast.parse(textwrap.dedent(source)).body[0].body  # type: ignore[attr-defined, no-any-return]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
