"""Find the siblings of a plural folder by name, so that nothing else has to list them.

Every module below the package is imported, and the first that fails to import fails the lookup: a sibling that is
silently missing would be worse than an error. An installed package adds its own classes by entry points::

    [project.entry-points."whet.methods"]
    toy = "whet_toy:Toy"
"""

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from whet.errors import InvalidPlugin, UnknownName
from whet.utils.parameters import shown

__all__ = ["advice_on", "by_name", "choose", "member_name", "members"]

T = TypeVar("T")


@cache
def members(package: str, base: type[T], *, group: str | None = None) -> tuple[type[T], ...]:
    """Return the concrete subclasses of `base` defined below `package`, in module order, and those of entry points.

    Modules whose names begin with an underscore hold what several members share, and no member.

    Args:
        package: full name of a package.
        base: the class that all members derive from.
        group: the entry points of this group name classes of other packages; if None, there are none.

    Raises:
        InvalidPlugin: an entry point does not give a concrete subclass.
    """
    root = importlib.import_module(package)
    classes: list[type[T]] = []
    for info in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        if info.name.rpartition(".")[2].startswith("_"):
            continue
        module = importlib.import_module(info.name)
        classes += [
            member
            for member in vars(module).values()
            if isinstance(member, type)
            and issubclass(member, base)
            and member.__module__ == module.__name__
            and not inspect.isabstract(member)
        ]
    # (a package that is on the path twice has its entry points twice)
    plugins = {} if group is None else {(point.name, point.value): point for point in entry_points(group=group)}
    return (*classes, *(_loaded(point, base) for point in plugins.values()))


def _loaded(point: EntryPoint, base: type[T]) -> type[T]:
    package = point.dist.name if point.dist else "a package"
    try:
        member = point.load()
    except Exception as error:
        raise InvalidPlugin(
            f"every entry point of {point.group} must load, but got {point.name}={point.value} of {package}, which "
            f"fails: {type(error).__name__}: {error}; repair or uninstall {package}"
        ) from error
    if not (isinstance(member, type) and issubclass(member, base)) or inspect.isabstract(member):
        raise InvalidPlugin(
            f"every entry point of {point.group} must name a concrete subclass of {base.__name__}, but got "
            f"{point.name}={point.value} of {package}; repair or uninstall {package}"
        )
    return member


def by_name(classes: Iterable[type[T]], names: Callable[[type[T]], Iterable[str]]) -> dict[str, type[T]]:
    """Return classes by all their names.

    Args:
        classes: from `members`.
        names: returns the names of one.

    Raises:
        InvalidPlugin: two classes have a name in common.
    """
    known: dict[str, type[T]] = {}
    for member in classes:
        for name in names(member):
            other = known.setdefault(name, member)
            if other is not member:
                raise InvalidPlugin(
                    f"names must differ, but got {name!r} for {other.__module__}.{other.__qualname__} and "
                    f"{member.__module__}.{member.__qualname__}; rename one or uninstall its package"
                )
    return known


def member_name(member: type, package: str) -> str:
    """Return where a member's module lies below the package, or, of a class from elsewhere, its own name in snake case.

    A member of `whet.methods` is called `pruning.heads` by its module; a class `MyMethod` of a notebook or of another
    package is called `my_method`.
    """
    if member.__module__.startswith(f"{package}."):
        return member.__module__.removeprefix(f"{package}.")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", member.__name__).lower()


def choose(name: str, names: Iterable[str], *, what: str) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        UnknownName: it is not; the message gives the nearest names.
    """
    known = sorted(names)
    if name in known:
        return name
    raise UnknownName(f"{what} must be a known name, but got {shown(name)}; {advice_on(name, known)}")


def advice_on(name: str, known: Iterable[str]) -> str:
    """Return what to write in the place of an unknown name: the nearest, or any of all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
