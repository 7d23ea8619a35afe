"""One writer for each folder: a lock beside it, which the system frees when its process dies.

What the holder of a folder's lock finds beside the folder was left by killed processes, and is removed.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from whet.errors import OutputExists, WhetError
from whet.utils.files import litter, not_written, remove
from whet.utils.progress import note

__all__ = ["EXPORT_DRAFT", "LOCK", "holding", "holds", "is_new"]

LOCK = ".lock"
"""A lock inside a folder: of a search, or where nothing can be written beside the folder."""
EXPORT_DRAFT = ".export.partial"
"""Where exports are made inside an artifact, on its disk."""
_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())
"""The folders that this thread holds."""


@contextmanager
def holding(target: Path, folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder, and remove what killed processes left beside it.

    Args:
        target: the folder, resolved; it need not exist.
        folder: what the user calls it.
        wait: whether to wait for another writer instead of refusing.

    Raises:
        OutputExists: another run is writing the folder.
        OutputNotWritten: the lock cannot be had.
    """
    if target in _HELD.get():
        yield
        return
    missing = [path for path in target.parents if not path.exists()]
    path = _lock_file(target)
    lock = FileLock(path)
    token = _HELD.set(_HELD.get() | {target})
    try:
        try:
            _acquire(lock, path, folder, wait=wait)
            _recover(target)
        except OSError as error:
            raise error if isinstance(error, WhetError) else not_written(folder, error) from error
        yield
    finally:
        _HELD.reset(token)
        if lock.is_locked:
            # removed while it is held: whoever waits for it notices, and makes a new one
            remove(path)
            lock.release()
        _remove_empty(missing)


def _lock_file(target: Path) -> Path:
    """Beside the folder; inside it where nothing can be written beside it, since it cannot be replaced then."""
    inside = target.is_dir() and not os.access(target.parent, os.W_OK)
    return target / LOCK if inside else target.with_name(f".{target.name}.lock")


def _acquire(lock: FileLock, path: Path, folder: Path, *, wait: bool) -> None:
    while not lock.is_locked:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except FileNotFoundError:
            continue  # another run has just removed the parent that it had made
        except Timeout as error:
            if not path.exists():
                path.touch()  # fails where no file can be made, as in /proc, which looks like a lock that others hold
                continue
            writer = _text(path)
            by = f"process {writer}" if writer.isdigit() else "another process"
            if not wait:
                raise OutputExists(
                    f"an output folder must have one writer, but {by} is writing {folder}; wait for it, or name another"
                ) from error
            note(f"waiting for {by}, which is writing {folder}")
            lock.acquire()
    path.write_text(str(os.getpid()), encoding="utf-8")


def _recover(target: Path) -> None:
    """Put back what a killed process had moved aside, and remove the rest that it left."""
    former = litter(target, "old")
    if former and is_new(target):
        former.pop(0).rename(target)
    remove(*former, *litter(target, "partial"), target / EXPORT_DRAFT)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that were made for a lock and hold nothing, innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def holds(folder: Path) -> bool:
    """Return whether this thread holds a folder."""
    return folder.resolve() in _HELD.get()


def is_new(target: Path) -> bool:
    """Return whether a folder does not exist or is empty."""
    return not target.exists() or not any(target.iterdir())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
