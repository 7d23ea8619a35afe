"""Digests, and output that is whole or absent: written beside its place under another name, then renamed."""

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
"""Bytes of a file in which its mark must be."""


def check_output(folder: Path, *, overwrite: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a place that cannot or must not be written, before any work.

    Raises:
        OutputExists: the folder holds something and `overwrite` is off, or holds an input or the working folder.
        OutputNotWritten: the place cannot be written.
    """
    place = folder.resolve()
    for kept in (Path.cwd(), *(path.resolve() for path in inputs if path.exists())):
        if place == kept or place in kept.parents:
            raise OutputExists(
                f"the output folder must be one of its own, but got {folder}, which holds {kept}; name another"
            )
    taken = next((path for path in (place, *place.parents) if path.exists() and not path.is_dir()), None)
    if taken is not None:
        raise OutputExists(f"the output must be a folder, but got {folder}, and {taken} is a file; name another")
    if place.is_dir() and any(place.iterdir()) and not overwrite:
        raise OutputExists(
            f"the output folder must be new or empty, but {folder} holds files; name another or give --overwrite"
        )
    parent = next(path for path in place.parents if path.exists())
    if not os.access(parent, os.W_OK):
        raise OutputNotWritten(f"the output folder must be writable, but {parent} is not; name another")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to write into; it takes the place of `folder` when the block ends, and goes if it fails.

    Raises:
        OutputExists: `folder` holds something and `overwrite` is off.
        OutputNotWritten: something could not be written, on a full disk for one.
    """
    check_output(folder, overwrite=overwrite)
    place = folder.resolve()
    _sweep(place)
    draft = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        draft.mkdir(parents=True)
        yield draft
        _swap(draft, place)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OutputExists | OutputNotWritten):
            raise
        raise OutputNotWritten(
            f"{folder} must be writable to its end, but {error}; free some space or name another"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_files(folder: Path, names: Iterable[str], *, mark: bytes, overwrite: bool) -> None:
    """Refuse a place where files cannot or must not be written, before any work.

    Args:
        folder: where; it need not exist.
        names: of the files.
        mark: stands at the beginning of every file that may be replaced, since it came from here.
        overwrite: whether any other may be replaced too.

    Raises:
        OutputExists: one of them is there and lacks the mark.
        OutputNotWritten: the place cannot be written.
    """
    place = folder.resolve()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir():
        raise OutputNotWritten(f"the output must be a folder, but got {folder}, and {there} is a file; name another")
    if not os.access(there, os.W_OK):
        raise OutputNotWritten(f"the output folder must be writable, but {there} is not; name another")
    for path in (place / name for name in names):
        if path.is_dir():
            raise OutputExists(f"the output must be a file, but {path} is a folder; name another")
        if path.exists() and not overwrite and not _bears(path, mark):
            raise OutputExists(
                f"files of others must stay, but {path} is there already; name another folder or give --overwrite"
            )


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; none appears before all are written, and the last one given appears last.

    Raises:
        OutputNotWritten: one cannot be written.
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
    """Write a small file so that it is either the old or the new one, never half of it."""
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
    found = hashlib.sha256()
    for piece in [content] if isinstance(content, bytes) else content:
        found.update(piece)
    return found.hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of JSON values; the order of keys does not matter."""
    return digest(json.dumps(value, sort_keys=True).encode())


def _bears(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return mark in file.read(_HEAD)


def _sweep(place: Path) -> None:
    """Remove what killed runs left of their drafts."""
    for left in place.parent.glob(f".{place.name}.*.partial"):
        owner = left.name.removesuffix(".partial").rpartition(".")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _swap(draft: Path, place: Path) -> None:
    if not place.exists():
        draft.rename(place)
        return
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    place.rename(old)
    try:
        draft.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old)
