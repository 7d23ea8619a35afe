"""Digests, and small files that are written as a whole: under a temporary name beside their path, then renamed."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whet.errors import OutputNotWritten

__all__ = [
    "can_write",
    "check_path",
    "digest",
    "json_digest",
    "litter",
    "not_written",
    "remove",
    "write_files",
    "write_text",
]

_DRAFT = 24
"""Bytes that the name of a draft is longer than that of its file, at most."""
_NAME = 255
"""Bytes that a name has at most on the usual file systems."""
_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories of control characters, of bytes that are no text, and of ends of lines."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_path(path: Path, what: str = "the output") -> None:
    """Check before any work that a path can be the place of a file or folder to write.

    Args:
        path: the place; it need not exist.
        what: the option or argument, for the message.

    Raises:
        OutputNotWritten: the path has control characters, is no text, is too long, or leads in a circle.
    """
    text = str(path)
    if any(unicodedata.category(sign) in _BREAKING for sign in text):
        raise OutputNotWritten(
            f"{what} must have a name of plain text, without ends of lines, but got {text!r}; name another"
        )
    if (size := len(os.fsencode(path.name))) > _NAME - _DRAFT:
        raise OutputNotWritten(
            f"{what} must have a name of at most {_NAME - _DRAFT} bytes, but got {size} in {path.name[:20]}...; "
            "give a shorter one"
        )
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        shown = text if len(text) < 2 * _NAME else f"{text[:_NAME]}..."
        raise OutputNotWritten(
            f"{what} must be a path that can be written, but {shown}: {error.strerror}; name another"
        ) from error


def can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder, by making one: rights do not tell of a disk that is read-only."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def not_written(path: Path, error: BaseException) -> OutputNotWritten:
    """Return the error to raise where writing to a path failed; only a full disk is told to be one."""
    full = getattr(error, "errno", None) in _FULL or any(os.strerror(code) in str(error) for code in _FULL)
    advice = "free some space or name another" if full else "check its rights and its disk, or name another"
    return OutputNotWritten(f"{path} must be writable to its end, but {error}; {advice}")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; no file appears before all are written, and they appear in the given order.

    The caller holds the folder (see `whet.utils.outputs`), so that all drafts there are those of killed processes.

    Args:
        folder: the folder, which is created if it does not exist.
        files: contents by file name.

    Raises:
        OutputNotWritten: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error
    _write({folder / name: content for name, content in files.items()}, what=folder)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically: at any moment, the path holds the old or the new text as a whole.

    The caller holds the file's folder, as for `write_files`.

    Raises:
        OutputNotWritten: the file cannot be written.
    """
    _write({path: text.encode()}, what=path)


def _write(files: Mapping[Path, bytes], *, what: Path) -> None:
    drafts = {path.with_name(f".{path.name}.{os.getpid()}.partial"): path for path in files}
    try:
        for draft, path in drafts.items():
            remove(*litter(path, "partial"))
            draft.write_bytes(files[path])
        for draft, path in drafts.items():
            draft.replace(path)
    except OSError as error:
        raise not_written(what, error) from error
    finally:
        remove(*drafts)


def litter(path: Path, ending: str) -> list[Path]:
    """Return what killed processes left beside a path: its drafts or its former versions, newest first.

    Args:
        path: a file or folder that the caller alone writes.
        ending: partial or old.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.{ending}")
    try:
        with os.scandir(path.parent) as entries:
            left = [entry for entry in entries if pattern.fullmatch(entry.name)]
        return [Path(entry) for entry in sorted(left, key=lambda entry: -entry.stat(follow_symlinks=False).st_mtime)]
    except OSError:
        return []


def remove(*paths: Path) -> None:
    """Remove files and folders as far as that is possible."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def digest(content: Path | bytes | Iterable[bytes]) -> str:
    """Return the SHA-256 of a file, of bytes, or of several pieces of bytes in a row, as 64 hexadecimal digits."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    sha256 = hashlib.sha256()
    for piece in [content] if isinstance(content, bytes) else content:
        sha256.update(piece)
    return sha256.hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of JSON values; the order of keys does not matter."""
    return digest(json.dumps(value, sort_keys=True).encode())
