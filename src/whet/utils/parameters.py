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
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from whet.errors import InvalidParameter

__all__ = ["Parameter", "check", "parameters", "require_one"]

_HOLDS = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
"""What each bound of annotated-types asks for."""
_LARGEST = 2**63 - 1
"""Whole numbers beyond it fit into no tensor."""


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
        left = [f"{self.bounds[side]:g} {sign} " for side, sign in (("gt", "<"), ("ge", "<=")) if side in self.bounds]
        right = [f" {sign} {self.bounds[side]:g}" for side, sign in (("lt", "<"), ("le", "<=")) if side in self.bounds]
        return "".join([*left, self.name, *right])

    def to_dict(self) -> dict[str, Any]:
        """Return what people want to know of it, as JSON values."""
        return {name: getattr(self, name) for name in ("name", "kind", "stated", "default", "meaning")}

    def broken(self, value: Any) -> str | None:
        """Return what must hold of a value and does not, or None."""
        if self.optional and value is None:
            return None
        if self.choices:
            known = any(_has_type(value, type(choice)) and value == choice for choice in self.choices)
            return None if known else f"{self.name} must be one of {', '.join(map(str, self.choices))}"
        if self.type in (int, float, str, bool) and not _has_type(value, self.type):
            return f"{self.name} must be of type {self.type.__name__}"
        if get_origin(self.type) is Mapping and not _has_text_keys(value):
            return f"{self.name} must be a mapping from text"
        if not _within(value, self.bounds):
            return f"{self.stated} must hold"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{self.name} must be finite"
        if isinstance(value, int) and abs(value) > _LARGEST:
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
            raise InvalidParameter(
                f"{broken}, but got {known.name}={value!r}; {known.name} is: {known.meaning or 'a parameter'}"
            )


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
    return tuple(_parameter(field, hints[field.name], meanings.get(field.name, "")) for field in fields)


def _has_type(value: Any, wanted: type) -> bool:
    """Whether a value is of a type; a bool is no number, but a whole number is a float."""
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)


def _has_text_keys(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _within(value: Any, bounds: Mapping[str, float]) -> bool:
    return all(_HOLDS[side](value, limit) for side, limit in bounds.items())


def _parameter(field: dataclasses.Field[Any], hint: Any, meaning: str) -> Parameter:
    bounds = {}
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        sides = [(side, getattr(extra, side, None)) for extra in extras for side in _HOLDS]
        bounds = {side: limit for side, limit in sides if limit is not None}
    # (typing spells the union of a Literal and None in its own way)
    union = get_args(hint) if get_origin(hint) in (UnionType, Union) else ()
    optional = len(union) == 2 and NoneType in union
    bare = next(part for part in union if part is not NoneType) if optional else hint
    default = None if field.default is dataclasses.MISSING else field.default
    return Parameter(field.name, bare, bounds, optional, default, meaning)


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
