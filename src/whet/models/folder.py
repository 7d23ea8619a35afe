"""The files of a model's folder: read with limits, and none of them leads outside.

Nothing in a folder may make a load read other files, or never end. So all that is not hidden must be regular files or
folders. A link must lead to a file in the same folder, or in the `blobs` of the hub's cache that the folder lies in
(`snapshots/REVISION/NAME -> ../../blobs/DIGEST`). Names in JSON files are names of files in the folder.
"""

import difflib
import json
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from whet.errors import InvalidModel, WhetError
from whet.utils.inputs import one_line, read_text
from whet.utils.manifests import MODULE_FOLDERS

__all__ = [
    "check_folder",
    "conversion",
    "find_file",
    "is_folder",
    "read_list",
    "read_object",
    "reading",
    "weight_names",
]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_FIRST = (_CONFIG, "adapter_config.json")
"""The files that say what a folder or hub name holds."""
_PATIENCE = 10.0
"""Seconds to wait for the hub."""
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
            if fnmatchcase(name, MODULE_FOLDERS) and (folder / name).is_dir():
                for entry in (folder / name).iterdir():
                    _check_entry(folder, f"{name}/{entry.name}")
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
    """Check that a source that is no folder is the name of a model on the hub, which is asked once at most."""
    name = str(source)
    if os.path.lexists(source):
        raise InvalidModel(f"the model must be a folder or hub name, but got the file {source}; name its folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise _no_folder(source)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        if any(isinstance(try_to_load_from_cache(name, file), str) for file in _FIRST):
            return
        get_hf_file_metadata(hf_hub_url(name, _FIRST[0]), timeout=_PATIENCE)
    except HFValidationError as error:
        raise _no_folder(source) from error
    except EntryNotFoundError:
        return
    except Exception as error:  # of the network, in many classes
        why = f"the hub cannot be asked: {_reason(error)}"
        if isinstance(error, RepositoryNotFoundError):
            why = "the hub has no such model"
        elif isinstance(error, OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        raise InvalidModel(
            f"the model must be a folder or hub name that transformers can read, but got {name}: there is no such "
            f"folder{_near(Path(name))}, and {why}; check the name"
        ) from error


def _no_folder(source: str | Path) -> InvalidModel:
    return InvalidModel(
        f"the model must be a folder that is there, but there is none at {one_line(source)}{_near(Path(source))}; "
        "check the name"
    )


def _near(path: Path) -> str:
    """Name the folders beside a missing one that it may be meant for."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if (entry / _CONFIG).is_file()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, beside, n=2, cutoff=0.6)
    return f" (is it {' or '.join(near)}?)" if near else ""


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


def conversion(folder: str | Path, pattern: str, weights: str) -> str:
    """Return the command that turns pickles into safetensors; torch reads nothing but tensors from them.

    Args:
        folder: where they are.
        pattern: of their names.
        weights: the name of the file to write.
    """
    code = (
        f"import glob, torch, safetensors.torch as s; d = {json.dumps(str(folder))}; "
        f'f = glob.glob(glob.escape(d) + "/{pattern}"); '
        'l = lambda p: torch.load(p, map_location="cpu", weights_only=True).items(); '
        "w = {k: v.clone().contiguous() for p in f for k, v in l(p)}; "
        f's.save_file(w, d + "/{weights}", {{"format": "pt"}})'
    )
    return shlex.join(["python", "-c", code])


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
    value = _read_json(path)
    if not isinstance(value, dict):
        raise InvalidModel(f"{path} must hold a JSON object, but it holds {value!r:.40}; copy it again")
    return value


def read_list(path: Path) -> list[Any]:
    """Return the list of a JSON file that belongs to a model.

    Raises:
        InvalidModel: it cannot be read, or holds something else.
    """
    value = _read_json(path)
    if not isinstance(value, list):
        raise InvalidModel(f"{path} must hold a JSON list, but it holds {value!r:.40}; copy it again")
    return value


def _read_json(path: Path) -> Any:
    text = read_text(path, what="a model's JSON file", error=InvalidModel, largest=_LARGEST_JSON)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} must be a valid JSON file, but {error}; copy it again") from error


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
