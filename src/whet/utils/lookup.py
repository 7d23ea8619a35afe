"""Find the siblings of a plural folder by name, so that nothing else has to list them.

Every module below the package is imported, and the first that fails to import fails the lookup: a sibling that is
silently missing would be worse than an error.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from whet.errors import UnknownName

__all__ = ["choose", "members"]

T = TypeVar("T")


@cache
def members(package: str, base: type[T]) -> tuple[type[T], ...]:
    """Return the concrete subclasses of `base` defined below `package`, in module order."""
    root = importlib.import_module(package)
    found: list[type[T]] = []
    for info in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        module = importlib.import_module(info.name)
        found += [
            member
            for member in vars(module).values()
            if isinstance(member, type)
            and issubclass(member, base)
            and member.__module__ == module.__name__
            and not inspect.isabstract(member)
        ]
    return tuple(found)


def choose(name: str, names: Iterable[str], *, what: str) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        UnknownName: it is not; the message gives the nearest names.
    """
    known = sorted(names)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    advice = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"
    raise UnknownName(f"{what} must be a known name, but got {name!r}; {advice}")
