"""Ranges of parameters, written once in the annotation: checked on construction and shown by `whet methods`."""

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from whet.errors import InvalidParameter

__all__ = ["Parameter", "Range", "check", "parameters", "require_one"]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number."""

    above: float | None = None
    """The number is greater than this."""
    least: float | None = None
    """The number is this or greater."""
    below: float | None = None
    """The number is smaller than this."""
    most: float | None = None
    """The number is this or smaller."""

    def __contains__(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def stated(self, name: str) -> str:
        """Return the range in words, such as `0 < keep <= 1`."""
        left = (
            f"{self.above:g} < " if self.above is not None else f"{self.least:g} <= " if self.least is not None else ""
        )
        right = (
            f" < {self.below:g}" if self.below is not None else f" <= {self.most:g}" if self.most is not None else ""
        )
        return f"{left}{name}{right}"


class Parameter(NamedTuple):
    """One parameter of a method, for people."""

    name: str
    kind: str
    stated: str
    default: Any
    meaning: str


def check(instance: Any) -> None:
    """Check every annotated field of a dataclass instance.

    Raises:
        InvalidParameter: a value has the wrong type, is outside its range, or is none of the choices.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    meanings = _meanings(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        bare, bounds, optional = _unpack(hints[field.name])
        if optional and value is None:
            continue
        advice = f"{field.name} is: {meanings.get(field.name, 'a parameter')}"
        if get_origin(bare) is Literal:
            if value not in get_args(bare):
                choices = ", ".join(map(str, get_args(bare)))
                raise InvalidParameter(
                    f"{field.name} must be one of {choices}, but got {field.name}={value!r}; {advice}"
                )
        elif bare in (int, float, str, bool) and not _has_type(value, bare):
            raise InvalidParameter(
                f"{field.name} must be of type {bare.__name__}, but got {field.name}={value!r}; {advice}"
            )
        if get_origin(bare) is Mapping and not (
            isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        ):
            raise InvalidParameter(
                f"{field.name} must be a mapping from text, but got {field.name}={value!r}; {advice}"
            )
        if bounds is not None and value not in bounds:
            raise InvalidParameter(f"{bounds.stated(field.name)} must hold, but got {field.name}={value}; {advice}")
        if isinstance(value, float) and math.isinf(value):
            raise InvalidParameter(f"{field.name} must be finite, but got {field.name}={value}; {advice}")


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


def parameters(owner: type) -> list[Parameter]:
    """Return the parameters of a dataclass with their ranges and docstrings."""
    hints = get_type_hints(owner, include_extras=True)
    meanings = _meanings(owner)
    rows = []
    for field in dataclasses.fields(owner):
        bare, bounds, _ = _unpack(hints[field.name])
        choices = get_args(bare) if get_origin(bare) is Literal else ()
        kind = "choice" if choices else getattr(bare, "__name__", str(bare))
        stated = " | ".join(map(str, choices)) if choices else bounds.stated(field.name) if bounds else ""
        default = None if field.default is dataclasses.MISSING else field.default
        rows.append(Parameter(field.name, kind, stated, default, meanings.get(field.name, "")))
    return rows


def _has_type(value: Any, wanted: type) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


class _Hint(NamedTuple):
    """An annotation, taken apart."""

    bare: Any
    bounds: Range | None
    optional: bool


def _unpack(hint: Any) -> _Hint:
    bounds = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), None)
    # (typing spells the union of a Literal and None in its own way)
    if get_origin(hint) in (UnionType, Union) and len(get_args(hint)) == 2 and NoneType in get_args(hint):
        return _Hint(next(one for one in get_args(hint) if one is not NoneType), bounds, optional=True)
    return _Hint(hint, bounds, optional=False)


def _meanings(owner: type) -> dict[str, str]:
    """The docstring under each field, of the class and its bases."""
    found: dict[str, str] = {}
    for cls in reversed(owner.__mro__[:-1]):
        if not dataclasses.is_dataclass(cls):
            continue
        try:
            source = inspect.getsource(cls)
        except (OSError, TypeError):  # defined in a notebook's cell or by exec
            continue
        body = ast.parse(textwrap.dedent(source)).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                found[field.target.id] = " ".join(text.value.value.split())  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
