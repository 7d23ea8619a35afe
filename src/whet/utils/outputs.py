"""Output folders: each has one writer at a time, appears whole, and replaces nothing that whet did not write.

.NAME.lock           beside the folder NAME, held by its writer from the check to the end (see `locks`)
.NAME.PID.partial    the folder while it is written
.NAME.PID.old        the former folder, for a moment, on systems that cannot exchange two folders in one step
"""

import ctypes
import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from safetensors import SafetensorError

from whet.errors import OutputExists, OutputNotWritten, WhetError
from whet.utils.distributed import from_first_process
from whet.utils.files import check_path, not_written, remove
from whet.utils.inputs import exists
from whet.utils.locks import EXPORT_DRAFT, LOCK, holding, holds, is_new
from whet.utils.progress import detail

__all__ = [
    "REPORT_FILES",
    "adding_to",
    "check_files",
    "check_inputs",
    "check_output",
    "claimed",
    "files_of_others",
    "has_mark",
    "holding_output",
    "kind_of",
    "new_folder",
    "set_rights",
]

P = ParamSpec("P")
T = TypeVar("T")
_HEAD = 4096
"""Bytes at the beginning of a file that must contain its mark."""
REPORT_FILES = ("report.html", "report.png", "report.svg", "report.md")
"""What a report may add to any folder: the page, the picture in two forms, the Markdown."""
_KINDS = {
    "manifest.json": ("README.md", "measurements.jsonl", "recipe.yaml", EXPORT_DRAFT),
    "search.json": ("trials", "models", "best", "workers", "measurements.jsonl", "journal", "journal.lock"),
    "comparison.json": ("measurements.jsonl",),
    "measurements.jsonl": (),
}
"""The file that tells each kind of folder that whet writes, and what else is in it besides what a manifest lists."""
_BESIDE = re.compile(r"\.(.+?)(\.\d+\.partial|\.lock)")
"""The names of a draft and of a lock."""


def check_output(folder: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check before any work that an output folder can and may be written.

    Args:
        folder: the output folder.
        overwrite: whether a folder that whet wrote may be replaced.
        inputs: paths that the output must not replace.

    Raises:
        OutputExists: the folder is not empty and `overwrite` is off; it holds what whet did not write; or it contains
            an input or the working folder.
        OutputNotWritten: the folder cannot be written.
    """
    check_inputs(folder, inputs)
    target = folder.resolve()
    blocking = next((path for path in (target, *target.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise OutputExists(f"the output must be a folder, but got {folder}, and {blocking} is a file; name another")
    parent = next(path for path in target.parents if path.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputNotWritten(f"the output folder must be writable, but {parent} is not; name another")
    if target.is_mount():
        raise OutputNotWritten(
            f"the output folder must not be a disk of its own, but {folder} is; name a folder inside it"
        )
    try:
        filled = target.is_dir() and any(path.name != LOCK and not _is_left(path.name) for path in target.iterdir())
        others = files_of_others(target)
    except OSError as error:
        raise not_written(folder, error) from error
    if filled and not overwrite:
        raise OutputExists(
            f"the output folder must be new or empty, but {folder} holds files; name another or give --overwrite"
        )
    if others:
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise OutputExists(
            f"only what whet wrote may be replaced, but {folder} holds files of others: {some}; name another folder or "
            "move them"
        )


def check_inputs(folder: Path, inputs: Iterable[Path]) -> None:
    """Check that an output folder contains neither the working folder nor what is read.

    Raises:
        OutputExists: it does.
        OutputNotWritten: it cannot be a folder to write; see `check_path`.
    """
    check_path(folder)
    target = folder.resolve()
    for protected in (Path.cwd(), *(path.resolve() for path in inputs if exists(path))):
        if target == protected or target in protected.parents:
            raise OutputExists(
                f"the output folder must be one of its own, but got {folder}, which holds {protected}; name another"
            )


def kind_of(folder: Path) -> str | None:
    """Return the name of the file that tells what kind of whet's folders a folder is, or None."""
    return next((kind for kind in _KINDS if (folder / kind).is_file()), None)


def files_of_others(folder: Path) -> list[str]:
    """Return the names in a folder that whet did not write there; none if there is no such folder."""
    if not folder.is_dir():
        return []
    kind = kind_of(folder)
    known = {LOCK} if kind is None else {kind, *_KINDS[kind], LOCK, *REPORT_FILES, *_listed(folder / kind)}
    inner = {name.partition("/")[0] for name in known if "/" in name}
    names = {
        name
        for path in folder.iterdir()
        for name in (
            [f"{path.name}/{file.name}" for file in path.iterdir()]
            if path.name in inner and path.is_dir()
            else [path.name]
        )
    }
    beside = {name for name in names if (match := _BESIDE.fullmatch(name)) and match[1] in known}
    return sorted(name for name in names - known - beside if not _is_left(name))


def _is_left(name: str) -> bool:
    """Return whether a name is a draft of a file that tells a kind: a killed run may have left no more."""
    match = _BESIDE.fullmatch(name)
    return match is not None and match[1] in _KINDS


@contextmanager
def claimed(folder: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> Iterator[None]:
    """Hold an output folder from the check to the end of the block, so that no other run writes it.

    Of several processes that do one job, the first holds it for all of them.

    Args:
        folder: the output folder.
        overwrite: whether a folder that whet wrote may be replaced.
        inputs: paths that the output must not replace.

    Raises:
        OutputExists: see `check_output`; or another run is writing the folder.
        OutputNotWritten: the folder cannot be written.
    """
    with ExitStack() as stack:
        from_first_process(lambda: stack.enter_context(_claimed(folder, overwrite, tuple(inputs))))
        yield


def holding_output(*sources: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function hold its folder `out` from the check to the end; `overwrite` says whether it may be replaced.

    Args:
        sources: names of the function's arguments that it reads and must not replace: paths, several of them, or
            objects with `files`.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            given = signature.bind(*args, **kwargs).arguments
            read = [given[name] for name in sources if given.get(name) is not None]
            inputs = [Path(path) for source in read for path in _paths_of(source)]
            with claimed(Path(given["out"]), overwrite=given.get("overwrite", False), inputs=inputs):
                return function(*args, **kwargs)

        return wrapped

    return decorate


def _paths_of(source: object) -> Iterable[str | Path]:
    if isinstance(source, list | tuple):
        return source
    paths: Any = getattr(source, "files", (source,))
    return list(paths)


@contextmanager
def adding_to(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder to which files are added, so that no other run writes it.

    Args:
        folder: it need not exist.
        wait: whether to wait for another run instead of refusing.

    Raises:
        OutputExists: another run is writing the folder.
        OutputNotWritten: the folder cannot be written.
    """
    check_path(folder)
    with holding(folder.resolve(), folder, wait=wait):
        yield


@contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to write into, which replaces `folder` at the end of the block or is removed on an error.

    Everything in the new folder gets the rights that the umask gives.

    Raises:
        OutputExists: see `check_output`; or another run is writing the folder.
        OutputNotWritten: a file cannot be written, for example on a full disk.
    """
    with _claimed(folder, overwrite, ()):
        target = folder.resolve()
        draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            draft.mkdir()
            yield draft
            set_rights(draft)
            check_output(folder, overwrite=overwrite)  # others than whet may have written there meanwhile
            _swap(draft, target)
            detail(f"wrote {folder}")
        except (OSError, SafetensorError) as error:
            if isinstance(error, WhetError):
                raise
            raise not_written(folder, error) from error
        finally:
            remove(draft)


def check_files(folder: Path, names: Iterable[str], *, mark: bytes, overwrite: bool) -> None:
    """Check before any work that files can and may be written into a folder.

    Args:
        folder: the folder, which need not exist.
        names: names of the files.
        mark: bytes near the beginning of every file that whet wrote, which may be replaced.
        overwrite: whether files without the mark may be replaced too.

    Raises:
        OutputExists: a file exists without the mark and `overwrite` is off, or a name is that of a folder.
        OutputNotWritten: the folder cannot be written.
    """
    check_path(folder)
    target = folder.resolve()
    existing = next(path for path in (target, *target.parents) if path.exists())
    if not existing.is_dir():
        raise OutputNotWritten(f"the output must be a folder, but got {folder}, and {existing} is a file; name another")
    if not os.access(existing, os.W_OK):
        raise OutputNotWritten(f"the output folder must be writable, but {existing} is not; name another")
    for path in (target / name for name in names):
        if path.is_dir():
            raise OutputExists(f"the output must be a file, but {path} is a folder; name another")
        if path.exists() and not overwrite and not has_mark(path, mark):
            raise OutputExists(
                f"files of others must stay, but {path} is there already; name another folder or give --overwrite"
            )


def has_mark(path: Path, mark: bytes) -> bool:
    """Return whether a file has a mark near its beginning."""
    with path.open("rb") as file:
        return mark in file.read(_HEAD)


@contextmanager
def _claimed(folder: Path, overwrite: bool, inputs: tuple[Path, ...]) -> Iterator[None]:
    check_output(folder, overwrite=overwrite, inputs=inputs)
    target = folder.resolve()
    if holds(target):
        yield
        return
    with holding(target, folder, wait=False):
        check_output(folder, overwrite=overwrite, inputs=inputs)  # another run may just have written it
        yield


def _listed(marker: Path) -> set[str]:
    """The files that a manifest lists, exports included; none for other files."""
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        exports = content.get("exports", {}).values()
        return {name for part in (content, *exports) for name in part.get("files", ())}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return set()


def set_rights(draft: Path) -> None:
    """Give all files the rights that the umask leaves; libraries write weights for the owner alone."""
    allowed = draft.stat().st_mode & 0o666  # the draft was made with all rights but the umask's
    for path in draft.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(allowed)


def _swap(draft: Path, target: Path) -> None:
    """Put the draft in its place; a former folder is then where the draft was."""
    if is_new(target):
        draft.rename(target)  # which replaces a folder only as long as that is empty
        return
    if _exchange(draft, target):
        return
    former = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(former)
    try:
        draft.rename(target)
    except BaseException:
        former.rename(target)
        raise
    remove(former)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, at every moment of which both exist; return whether the system could."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h> and <stdio.h>
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
