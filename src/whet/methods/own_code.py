"""What methods from elsewhere do, as a digest: a class that was edited makes other models under the same name."""

from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

from whet.methods.base import Method
from whet.utils.files import digest

__all__ = ["own_code"]

_WRITTEN = ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__replace__")
"""Functions that dataclasses write, which follow from the fields."""
_PLAIN = (int, float, str, tuple)


def own_code(methods: Iterable[Method]) -> str | None:
    """Return a digest of the code of those methods that are not whet's; None if all are.

    Names of files and numbers of lines do not count, so that a notebook's cell may run twice. Neither do functions
    outside of the classes.
    """
    parts = [part for method in methods for part in _class_parts(type(method))]
    return digest("\n".join(parts).encode()) if parts else None


def _class_parts(method: type[Method]) -> Iterator[str]:
    owners = [owner for owner in method.__mro__ if owner.__module__.split(".")[0] not in ("whet", "abc", "builtins")]
    for name, value in [(name, value) for owner in owners for name, value in sorted(vars(owner).items())]:
        inner = getattr(value, "__func__", getattr(value, "fget", value))
        if name in _WRITTEN:
            continue
        if isinstance(code := getattr(inner, "__code__", None), CodeType):
            yield name
            yield from _code_parts(code)
        elif isinstance(value, _PLAIN) and not name.startswith("__"):
            yield f"{name} {value!r}"


def _code_parts(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames}"
    for one in code.co_consts:
        yield from _code_parts(one) if isinstance(one, CodeType) else [_plain(one)]


def _plain(value: Any) -> str:
    return repr(sorted(value, key=repr)) if isinstance(value, frozenset) else repr(value)
