"""Temporary folders that a kill does not leave behind for ever: the next run removes those of dead processes."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from whet.errors import OutputNotWritten, WhetError
from whet.utils.files import not_written, remove
from whet.utils.locks import holds
from whet.utils.outputs import adding_to

__all__ = ["temporary_folder"]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder for files that nobody needs after the block.

    It lies in a folder of the user in the system's place for temporary files, with a lock that tells whether its
    process is alive.

    Raises:
        OutputNotWritten: no temporary file can be written.
    """
    home = _home()
    try:
        _sweep(home)
        folder = home / uuid4().hex
        with adding_to(folder):
            try:
                folder.mkdir()
            except OSError as error:
                raise not_written(folder, error) from error
            try:
                yield folder
            finally:
                remove(folder)
    finally:
        with suppress(OSError):
            home.rmdir()  # if nobody else is using it


def _home() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        home = Path(tempfile.gettempdir()) / f"whet.{user}"
        home.mkdir(mode=0o700, exist_ok=True)
        known = home.lstat()
    except OSError as error:
        raise OutputNotWritten(
            f"there must be a place for temporary files, but {error}; set TMPDIR to a folder that can be written"
        ) from error
    if not stat.S_ISDIR(known.st_mode) or (hasattr(os, "getuid") and known.st_uid != user):
        raise OutputNotWritten(f"{home} must be a folder of your own, but it is not; set TMPDIR to another folder")
    return home


def _sweep(home: Path) -> None:
    names = set()
    with suppress(OSError):  # another process may remove it as it ends
        names = {path.name.removeprefix(".").removesuffix(".lock") for path in home.iterdir()}
    for folder in (home / name for name in names):
        if not holds(folder):
            with suppress(WhetError), adding_to(folder):  # refused as long as its process is alive
                remove(folder)
