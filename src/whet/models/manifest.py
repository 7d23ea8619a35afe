"""The manifest of an artifact: the digest of each of its files, where the model comes from, and its exports.

What a manifest says is not trusted further than it must be: names are those of files in its own folder, files that a
load reads must be listed, and what does not fit is refused in one sentence. Keys of other versions are kept.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from whet.errors import InvalidArtifact
from whet.utils.files import digest, json_digest
from whet.utils.schema import from_json

__all__ = [
    "CARD",
    "CONFIG",
    "COPY_OR_RENEW",
    "MANIFEST",
    "MEASUREMENTS",
    "NOTES",
    "RECIPE",
    "SHARDS",
    "WEIGHTS",
    "ExportEntry",
    "Manifest",
    "ShardIndex",
    "fault_of",
    "is_inside",
    "read_by_a_load",
    "read_manifest",
    "unlisted",
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
_LARGEST = 2**24
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


def _file_name(name: str) -> str:
    """Return a name if it is that of a file right in its folder.

    Raises:
        ValueError: it is not; pydantic makes it a ValidationError.
    """
    plain = name.isprintable() and not set(name) & set("/\\:") and name not in ("", ".", "..")
    if not plain or len(name.encode()) > _LONGEST:
        shown = name if len(name) <= 40 else f"{name[:40]}..."
        raise ValueError(f"a file must have a plain name without folders, but got {shown!r}")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ExportEntry(BaseModel):
    """One export: what a runtime reads, and how near its logits were to the model's."""

    model_config = ConfigDict(extra="allow", frozen=True)

    files: Annotated[dict[FileName, Sha256], Field(min_length=1)]
    """Digests by name of all files that a session reads."""
    model: Sha256
    """Digest of the model that it was made from."""
    precision: str | None = None
    """What the runtime computed in."""
    largest_difference: float | None = None
    """Between logits."""
    kl: float | None = None
    """Mean KL from the model to the runtime on held-out text, in nats."""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON values, as it was read."""
        return self.model_dump(mode="json", exclude_unset=True)


class ShardIndex(BaseModel):
    """The index of weights that are split into several files."""

    weight_map: dict[str, str]
    """The file of each weight."""


class Manifest(BaseModel):
    """What an artifact says of its own files."""

    model_config = ConfigDict(extra="allow", frozen=True)

    origin: str | None = None
    """Folder or hub name of the model that it was made from."""
    seed: int | None = None
    """Of every random choice."""
    versions: dict[str, str] = {}
    """What results depend on."""
    exports: dict[str, ExportEntry] = {}
    """By runtime and precision, with a space between."""
    files: dict[FileName, Sha256]
    """Digests by name of the files that were saved with the model; what is put beside them later is no part of it."""

    @property
    def digest(self) -> str:
        """One digest of the model's own files, without those that describe it."""
        return json_digest({name: value for name, value in self.files.items() if name not in NOTES})

    def is_of(self, export: ExportEntry) -> bool:
        """Return whether an export was made from this model.

        Version 0.1.0 could add files of others to its manifests, after an export as well; these do not count.
        """
        own = {name: value for name, value in self.files.items() if name in (RECIPE, *PICTURES) or read_by_a_load(name)}
        return export.model in (self.digest, json_digest(own))

    def with_entries(self, **entries: Any) -> "Manifest":
        """Return the manifest with other entries; those that are None are left out."""
        known = {**self.to_dict(), **entries}
        return Manifest.model_validate({name: value for name, value in known.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON values, as it was read; its files come last, since they are many."""
        known = self.model_dump(mode="json", exclude_unset=True)
        files = known.pop("files")
        return {**known, "files": {name: files[name] for name in sorted(files)}}

    def to_json(self) -> str:
        """Return the text of its file."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an artifact.

    Raises:
        InvalidArtifact: there is none, or it does not say what a manifest says.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file() or not is_inside(folder, MANIFEST):
            raise InvalidArtifact(f"{folder} must hold a readable {MANIFEST}, but it is not a file; copy it again")
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidArtifact(f"{folder} must hold a readable {MANIFEST}, but {error}; copy it again") from error
    if len(text) > _LARGEST:
        raise InvalidArtifact(f"{path} must be small, but it has more than {_LARGEST:,} bytes; copy it again")
    manifest = from_json(Manifest, text, what=str(path), error=InvalidArtifact, remedy="copy it again")
    for export, entry in manifest.exports.items():
        if name := next(filter(read_by_a_load, entry.files), None):
            raise InvalidArtifact(
                f"an export must have files of its own, but {path} gives {export} the file {name}, which a load of the "
                "model reads; copy it again"
            )
    return manifest


def read_by_a_load(name: str) -> bool:
    """Return whether loading a model or its tokenizer may read a file of this name."""
    return any(fnmatchcase(name, pattern) for pattern in _READ)


def unlisted(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Return the names in a folder that a load reads although the manifest does not list them."""
    for name in sorted(path.name for path in folder.iterdir()):
        if name not in manifest.files and read_by_a_load(name):
            yield name


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
