"""Digests, and atomic output: files and folders are written under a temporary name beside their path, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from safetensors import SafetensorError

from whet.errors import OutputExists, OutputNotWritten

__all__ = ["check_files", "check_output", "digest", "json_digest", "new_folder", "write_files", "write_text"]

_HEAD = 4096
"""Bytes at the beginning of a file that must contain its mark."""


def check_output(folder: Path, *, overwrite: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Check before any work that an output folder can and may be written.

    Args:
        folder: the output folder.
        overwrite: whether a folder that is not empty may be replaced.
        inputs: paths that the output must not replace.

    Raises:
        OutputExists: the folder is not empty and `overwrite` is off, or it contains an input or the working folder.
        OutputNotWritten: the folder cannot be written.
    """
    target = folder.resolve()
    for protected in (Path.cwd(), *(path.resolve() for path in inputs if path.exists())):
        if target == protected or target in protected.parents:
            raise OutputExists(
                f"the output folder must be one of its own, but got {folder}, which holds {protected}; name another"
            )
    blocking = next((path for path in (target, *target.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise OutputExists(f"the output must be a folder, but got {folder}, and {blocking} is a file; name another")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise OutputExists(
            f"the output folder must be new or empty, but {folder} holds files; name another or give --overwrite"
        )
    parent = next(path for path in target.parents if path.exists())
    if not os.access(parent, os.W_OK):
        raise OutputNotWritten(f"the output folder must be writable, but {parent} is not; name another")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to write into, which replaces `folder` at the end of the block or is removed on an error.

    Raises:
        OutputExists: `folder` is not empty and `overwrite` is off.
        OutputNotWritten: a file cannot be written, for example on a full disk.
    """
    check_output(folder, overwrite=overwrite)
    target = folder.resolve()
    _remove_stale_drafts(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        draft.mkdir(parents=True)
        yield draft
        _swap(draft, target)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OutputExists | OutputNotWritten):
            raise
        raise OutputNotWritten(
            f"{folder} must be writable to its end, but {error}; free some space or name another"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
    target = folder.resolve()
    existing = next(path for path in (target, *target.parents) if path.exists())
    if not existing.is_dir():
        raise OutputNotWritten(f"the output must be a folder, but got {folder}, and {existing} is a file; name another")
    if not os.access(existing, os.W_OK):
        raise OutputNotWritten(f"the output folder must be writable, but {existing} is not; name another")
    for path in (target / name for name in names):
        if path.is_dir():
            raise OutputExists(f"the output must be a file, but {path} is a folder; name another")
        if path.exists() and not overwrite and not _has_mark(path, mark):
            raise OutputExists(
                f"files of others must stay, but {path} is there already; name another folder or give --overwrite"
            )


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; no file appears before all are written, and they appear in the given order.

    Args:
        folder: the folder, which is created if it does not exist.
        files: contents by file name.

    Raises:
        OutputNotWritten: a file cannot be written.
    """
    drafts = {folder / f".{name}.{os.getpid()}.partial": folder / name for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for draft, content in zip(drafts, files.values(), strict=True):
            draft.write_bytes(content)
        for draft, path in drafts.items():
            draft.replace(path)
    except OSError as error:
        raise OutputNotWritten(f"{folder} must be writable, but {error}; free some space or name another") from error
    finally:
        for draft in drafts:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically: at any moment, the path holds the old or the new text as a whole.

    Raises:
        OutputNotWritten: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise OutputNotWritten(f"{path} must be writable, but {error}; free some space or name another") from error
    finally:
        draft.unlink(missing_ok=True)


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


def _has_mark(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return mark in file.read(_HEAD)


def _remove_stale_drafts(target: Path) -> None:
    """Remove the drafts of processes that were killed."""
    for draft in target.parent.glob(f".{target.name}.*.partial"):
        pid = draft.name.removesuffix(".partial").rpartition(".")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(draft, ignore_errors=True)


def _swap(draft: Path, target: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        draft.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)
