"""Checks the arguments of public functions by their annotations, so that a wrong one is a sentence and no traceback."""

import functools
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from whet.errors import InvalidParameter
from whet.utils.parameters import Parameter, parameter_of, shown

__all__ = ["checked"]

P = ParamSpec("P")
R = TypeVar("R")

_MADE_BY = {
    "Recipe": "whet.Recipe.from_list([...]) or whet.Recipe.read(FILE)",
    "Student": "whet.student_from('layer_subset:odd')",
    "Task": "whet.load_task(...)",
}
"""What gives a value of a type, where that is not the type itself."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, which then raises InvalidParameter for an argument that its annotations do not allow.

    Bounds count, as in `Annotated[int, Interval(ge=1)]`. A path must not be empty. Python itself refuses arguments that
    are missing or unknown.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def refusing(*args: P.args, **others: P.kwargs) -> R:
        given = signature.bind(*args, **others).arguments
        for parameter in _parameters(function):
            if parameter.name in given:
                _check(parameter, given[parameter.name])
        return function(*args, **others)

    return refusing


@cache
def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    hints, defaults = get_type_hints(function, include_extras=True), inspect.signature(function).parameters
    return tuple(
        parameter_of(name, hint, None if defaults[name].default is inspect.Parameter.empty else defaults[name].default)
        for name, hint in hints.items()
        if name != "return"
    )


def _check(parameter: Parameter, value: Any) -> None:
    if broken := parameter.broken(value):
        raise InvalidParameter(f"{broken}, but got {parameter.name}={_told(value)}; {_advice(parameter, value)}")
    if Path in _parts(parameter.type) and not all(map(_is_path, value if isinstance(value, list | tuple) else [value])):
        raise InvalidParameter(
            f"{parameter.name} must name a file or folder, but got {parameter.name}={shown(value)}; correct it"
        )


def _advice(parameter: Parameter, value: Any) -> str:
    wanted = _parts(parameter.type)
    if Path in wanted and any(map(_is_model, value if isinstance(value, list | tuple) else [value])):
        return "save it first, with its tokenizer: model.save_pretrained(DIR), tokenizer.save_pretrained(DIR); give DIR"
    if Path in wanted and isinstance(value, str | Path):
        return f"give a list: [{str(value)!r}]"
    if isinstance(parameter.type, type) and parameter.type not in (int, float, str, bool):
        name = parameter.type.__name__
        return f"make one by {_MADE_BY.get(name, f'whet.{name}(...)')}"
    return parameter.advice


def _is_model(value: Any) -> bool:
    return hasattr(value, "save_pretrained")


def _told(value: Any) -> str:
    """A value as messages show it: of a model or a table, which take pages, the type alone."""
    if isinstance(value, list | tuple) and any(map(_is_model, value)):
        return f"[{', '.join(map(_told, value))}]"
    return f"a {type(value).__name__}" if _is_model(value) or hasattr(value, "iloc") else shown(value)


def _parts(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    parts = hint if isinstance(hint, list) else get_args(hint)  # (a function's arguments are a list)
    return {str(hint) if isinstance(hint, list) else hint}.union(*map(_parts, parts))


def _is_path(value: Any) -> bool:
    return not isinstance(value, str | Path) or (str(value) != "" and "\0" not in str(value))
