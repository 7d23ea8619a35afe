"""The files of a model's folder: read with limits, and none of them leads outside.

Nothing in a folder may make a load read other files, or never end. So all that is not hidden must be regular files or
folders. A link must lead to a file in the same folder, or in the `blobs` of the hub's cache that the folder lies in
(`snapshots/REVISION/NAME -> ../../blobs/DIGEST`). Names in JSON files are names of files in the folder.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whet.errors import InvalidModel, WhetError
from whet.utils.inputs import one_line, read_text

__all__ = [
    "check_folder",
    "find_file",
    "is_folder",
    "read_object",
    "reading",
    "weight_names",
]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LARGEST_JSON = 64 * 2**20
"""In bytes. The index of the largest models has a few MB; tokenizer.json is not read here."""
_LARGEST_HEADER = 16 * 2**20
"""In bytes, enough for 150,000 tensors; a header of 80 MB took 30 s and 2 GB to read."""
_FILE_NAMES = {
    "config.json": ("configuration_files", "transformers_weights"),
    "tokenizer_config.json": ("fast_tokenizer_files",),
}
"""The entries that name other files for transformers to read."""


@contextmanager
def reading(source: str | Path) -> Iterator[None]:
    """Turn every error that a library raises for what a folder holds into an `InvalidModel`.

    Transformers checks few values before it uses them, and a bad one can raise any built-in error.
    """
    try:
        yield
    except (WhetError, MemoryError):
        raise
    except Exception as error:
        raise InvalidModel(
            f"the model must be a folder or hub name that transformers can read, but got {source!s}: {_reason(error)}; "
            "check the name, or what the folder holds"
        ) from error


def _reason(error: Exception) -> str:
    first, _, rest = str(error).strip().partition("\n")
    text = f"{first} {rest.strip().partition(chr(10))[0]}" if first.endswith(":") else first  # which field, and why
    if not isinstance(error, OSError | ValueError | RuntimeError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return one_line(text, 300).rstrip(".")


def is_folder(source: str | Path) -> bool:
    """Return whether a source is a folder, and not a hub name; names that are too long are none."""
    try:
        return Path(source).is_dir()
    except OSError:
        return False


def check_folder(source: str | Path) -> None:
    """Check that a source is a hub name, or a folder of regular files that lead nowhere else.

    Raises:
        InvalidModel: it is neither, or a file in it cannot be read safely.
    """
    if not str(source).strip():
        raise InvalidModel("the model must be a folder or hub name, but got an empty name; name one")
    if not is_folder(source):
        return _check_name(source)
    folder = Path(source)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InvalidModel(
            f"the model's folder must be readable, but got {folder}: {error}; change its rights"
        ) from error
    for name in names:
        if not name.startswith("."):
            _check_entry(folder, name)
    for name, keys in _FILE_NAMES.items():
        if (path := find_file(source, name)) is not None:
            entries = read_object(path)
            for key in keys:
                _check_names(folder / name, key, entries.get(key))
    if (folder / _WEIGHTS).is_file():
        _check_header(folder / _WEIGHTS)
    elif (folder / _INDEX).is_file():
        for name in weight_names(source):
            _check_header(folder / name)
    return None


def _check_name(source: str | Path) -> None:
    """Check that a source that is no folder can be the name of a model on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if os.path.lexists(source):
        raise InvalidModel(f"the model must be a folder or hub name, but got the file {source}; name its folder")
    try:
        validate_repo_id(str(source))
    except HFValidationError as error:
        raise InvalidModel(
            f"the model must be a folder that is there, but there is none at {one_line(source)}; check the name"
        ) from error


def _check_entry(folder: Path, name: str) -> None:
    path = folder / name
    if path.is_symlink() and path.is_file() and not _inside(path.resolve(), folder.resolve()):
        raise InvalidModel(
            f"every file of a model must lie in its folder, but {path} leads to {path.resolve()}; copy that file here"
        )
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # a link that leads nowhere is no file
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InvalidModel(f"a model's folder must hold ordinary files, but {path} is a pipe or device; remove it")


def _inside(target: Path, folder: Path) -> bool:
    """Return whether a resolved file lies in the folder, or in the blobs of the hub's cache around it."""
    caches = (above.parent / "blobs" for above in folder.parents if above.name == "snapshots")
    return any(target.is_relative_to(root) for root in (folder, *caches))


def _check_names(path: Path, key: str, value: Any) -> None:
    names = value if isinstance(value, list) else [] if value is None else [value]
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
            raise InvalidModel(
                f"{key} must name files of the same folder, but {path} has {key}={value!r:.80}; remove that entry"
            )


def _check_header(path: Path) -> None:
    """Check the length of a safetensors file's header, which a reader trusts; the rest is safetensors' own check."""
    try:
        with path.open("rb") as file:
            header, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
    except OSError as error:
        raise InvalidModel(f"the weights must be readable, but {error}; check the folder") from error
    if size < 8 or header > size - 8:
        raise InvalidModel(
            f"the weights must be a whole safetensors file, but {path} ends in its header, or is none; copy it again"
        )
    if header > _LARGEST_HEADER:
        raise InvalidModel(
            f"the header of the weights must have at most {_LARGEST_HEADER:,} bytes, but {path} says {header:,}; "
            "check where it comes from"
        )


def find_file(source: str | Path, name: str) -> Path | None:
    """Return a file of a folder, or of a hub name, which may be downloaded; None if there is none."""
    if is_folder(source):
        path = Path(source) / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    with reading(source):
        found = cached_file(
            str(source),
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return None if found is None else Path(found)


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file that belongs to a model.

    Raises:
        InvalidModel: it cannot be read, or holds something else.
    """
    text = read_text(path, what="a model's JSON file", error=InvalidModel, largest=_LARGEST_JSON)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} must be a valid JSON file, but {error}; copy it again") from error
    if not isinstance(value, dict):
        raise InvalidModel(f"{path} must hold a JSON object, but it holds {value!r:.40}; copy it again")
    return value


def weight_names(source: str | Path) -> list[str]:
    """Return the names of the weight files that a load reads, in order; empty if there are none.

    Raises:
        InvalidModel: the index cannot be read, or names a file that is elsewhere or missing.
    """
    if find_file(source, _WEIGHTS) is not None:
        return [_WEIGHTS]
    index = find_file(source, _INDEX)
    if index is None:
        return []
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, Mapping) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise InvalidModel(f"{index} must map weights to files, but weight_map={shards!r:.60}; copy it again")
    names = sorted(set(shards.values()))
    _check_names(index, "weight_map", names)
    if is_folder(source):
        _require_files(index, names)
    return names


def _require_files(index: Path, names: Iterable[str]) -> None:
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise InvalidModel(
            f"every file that {index} names must be there, but it lacks {', '.join(missing[:4])}; copy it again"
        )
