"""What a manifest lists: plain names of files in its own folder, and the digest of each.

What a manifest says is not trusted further than it must be. This module needs no library, so that what only runs models
keeps the same rules as what makes them; `models/manifest.py` has the schema.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from whet.errors import InvalidArtifact
from whet.utils.files import digest, json_digest
from whet.utils.inputs import exists

__all__ = [
    "CARD",
    "CONFIG",
    "COPY_OR_RENEW",
    "LARGEST_MANIFEST",
    "MANIFEST",
    "MEASUREMENTS",
    "MODULE_FOLDERS",
    "NOTES",
    "RECIPE",
    "SHARDS",
    "WEIGHTS",
    "fault_of",
    "file_name",
    "files_digest",
    "is_artifact",
    "is_inside",
    "made_from",
    "read_by_a_load",
]

MANIFEST = "manifest.json"
COPY_OR_RENEW = f"copy it again, or remove {MANIFEST} if you saved another model over the one that it describes"
"""What to do where files and manifest differ."""
RECIPE = "recipe.yaml"
MEASUREMENTS = "measurements.jsonl"
CARD = "README.md"
NOTES = (CARD, MEASUREMENTS)
"""Files that describe the model. They may change after it is saved, so their digests are not checked."""
PICTURES = ("curve.csv", "curve.png")
"""Files about the training, saved with the model."""
CONFIG = "config.json"
WEIGHTS = "*.safetensors"
SHARDS = "model.safetensors.index.json"
_LONGEST = 255
"""Bytes of the longest name."""
LARGEST_MANIFEST = 2**24
"""Bytes of the largest manifest."""
_READ = (
    CONFIG,
    "config.*.json",
    WEIGHTS,
    "*.safetensors.index.json",
    "pytorch_model*",
    ".metadata",
    "*.distcp",
    "*.gguf",
    "adapter_*",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.txt",
    "vocab*.json",
    "*vocab.json",
    "merges.txt",
    "*.model",
    "*.tokenizer",
    "*.tiktoken",
    "tekken.json",
    "bpe.codes",
    "dict.txt",
    "emoji.json",
    "byte_maps.json",
    "normalizer.json",
    "word_*.json",
    "*.spm",
    "chat_template.*",
    "*processor_config.json",
    "audio_tokenizer_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
)
"""Names of all files that transformers and sentence-transformers look for in a folder, whatever the model."""
MODULE_FOLDERS = "[0-9]*_*"
"""Names of the folders in which sentence-transformers keeps modules, such as 1_Pooling."""
_READ_IN_MODULES = ("*.json", "*.safetensors", "*.bin")
"""Names of all files that sentence-transformers looks for in the folder of a module."""


def file_name(name: str) -> str:
    """Return a name if it is that of a file right in its folder, or in a folder of it, such as 1_Pooling/config.json.

    Raises:
        ValueError: it is not; pydantic makes it a ValidationError.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(map(_is_plain, parts)):
        shown = name if len(name) <= 40 else f"{name[:40]}..."
        raise ValueError(f"a file must have a plain name, in one folder at most, but got {shown!r}")
    return name


def _is_plain(part: str) -> bool:
    plain = part.isprintable() and not set(part) & set("\\:") and part not in ("", ".", "..")
    return plain and len(part.encode()) <= _LONGEST


def files_digest(files: Mapping[str, str]) -> str:
    """Return one digest of a model's own files, without those that describe it.

    Args:
        files: the digest of each file, by name.
    """
    return json_digest({name: value for name, value in files.items() if name not in NOTES})


def made_from(files: Mapping[str, str], model: str) -> bool:
    """Return whether an export, which has the digest of its model, was made from the model of these files.

    Version 0.1.0 could add files of others to its manifests, after an export as well; these do not count.
    """
    own = {name: value for name, value in files.items() if name in (RECIPE, *PICTURES) or read_by_a_load(name)}
    return model in (files_digest(files), json_digest(own))


def read_by_a_load(name: str) -> bool:
    """Return whether loading a model or its tokenizer may read a file of this name, in a folder of a module too."""
    folder, _, last = name.rpartition("/")
    known = _READ_IN_MODULES if fnmatchcase(folder, MODULE_FOLDERS) else () if folder else _READ
    return any(fnmatchcase(last, pattern) for pattern in known)


def is_artifact(folder: str | Path) -> bool:
    """Return whether whet wrote a folder as a model; a manifest that is no file is not read, but counts."""
    manifest = Path(folder) / MANIFEST
    return exists(Path(folder)) and (exists(manifest) or manifest.is_symlink())


def fault_of(folder: Path, name: str, known: str | None) -> str | None:
    """Return what is wrong with a file, or None: it must lie in the folder, and have the known digest if there is one.

    Raises:
        InvalidArtifact: it cannot be read.
    """
    path = folder / name
    if not path.is_file():
        return "is missing"
    if not is_inside(folder, name):
        return "is a link that leads out of the folder"
    try:
        return None if known in (None, digest(path)) else "was truncated or altered"
    except OSError as error:
        raise InvalidArtifact(f"{path} must be readable, but {error}; copy it again") from error


def is_inside(folder: Path, name: str) -> bool:
    """Return whether a file lies in its folder; a link may lead to another file there.

    In a hub's cache, the files of `snapshots/REVISION` are links to `blobs` beside `snapshots`.
    """
    whole, home = (folder / name).resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs"
    return whole.is_relative_to(home) or (home.parent.name == "snapshots" and whole.is_relative_to(blobs))
