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
from whet.utils.manifests import (
    LARGEST_MANIFEST,
    MANIFEST,
    MODULE_FOLDERS,
    file_name,
    files_digest,
    is_inside,
    made_from,
    read_by_a_load,
)
from whet.utils.schema import from_json

__all__ = [
    "CASCADE",
    "DISTILLED",
    "FINE_TUNED",
    "ExportEntry",
    "Lineage",
    "Made",
    "Manifest",
    "ShardIndex",
    "file_names",
    "read_manifest",
    "refuse_deployment",
    "unlisted",
]

FINE_TUNED, DISTILLED, CASCADE = "fine-tuned", "distilled", "cascade"
"""How whet makes models: on labels, from a teacher, or as several of which the first that is sure answers."""

FileName = Annotated[str, AfterValidator(file_name)]
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


class Made(BaseModel):
    """How whet made a model that no recipe makes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    how: str
    """FINE_TUNED, DISTILLED or CASCADE."""
    task: str | None = None
    """Name of the task whose data it was trained on."""
    student: str | None = None
    """What a distilled model is, such as `DistilBERT-like student: layers 1, 3, 5`; see `BuiltStudent.title`. Of a
    cascade, the names of its fast models."""


class Lineage(BaseModel):
    """Where a model comes from as the hub tells it; what is not known is left out."""

    model_config = ConfigDict(extra="allow", frozen=True)

    base_model: str | None = None
    """Hub name of the nearest model on the hub that it was made from."""
    base_model_relation: str | None = None
    """What was done to that model in all, `finetune` or `quantized`; None if the hub has no word for it."""
    license: str | None = None
    """Licence of that model, as its card says."""
    language: tuple[str, ...] = ()
    """Languages of that model, as its card says."""
    datasets: tuple[str, ...] = ()
    """Hub names of the data that it was trained on since, and before as far as cards say."""


class ShardIndex(BaseModel):
    """The index of weights that are split into several files."""

    weight_map: dict[str, str]
    """The file of each weight."""


class Manifest(BaseModel):
    """What an artifact says of its own files."""

    model_config = ConfigDict(extra="allow", frozen=True)

    origin: str | None = None
    """Folder or hub name of the model that it was made from."""
    kind: str | None = None
    """Name of the kind of its answers; None if version 0.1.0 wrote it."""
    seed: int | None = None
    """Of every random choice."""
    calibration: dict[str, int] | None = None
    """How much text the methods looked at: examples, batch_size and max_length; None if none did."""
    versions: dict[str, str] = {}
    """What results depend on."""
    exports: dict[str, ExportEntry] = {}
    """By runtime and precision, with a space between."""
    made: Made | None = None
    """How whet trained it; None where it was compressed, or where version 0.1.0 trained it."""
    lineage: Lineage = Lineage()
    """Where it comes from as the hub tells it."""
    files: dict[FileName, Sha256]
    """Digests by name of the files that were saved with the model; what is put beside them later is no part of it."""

    @property
    def digest(self) -> str:
        """One digest of the model's own files, without those that describe it."""
        return files_digest(self.files)

    def is_of(self, export: ExportEntry) -> bool:
        """Return whether an export was made from this model."""
        return made_from(self.files, export.model)

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
            text = file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise InvalidArtifact(f"{folder} must hold a readable {MANIFEST}, but {error}; copy it again") from error
    if len(text) > LARGEST_MANIFEST:
        raise InvalidArtifact(f"{path} must be small, but it has more than {LARGEST_MANIFEST:,} bytes; copy it again")
    manifest = from_json(Manifest, text, what=str(path), error=InvalidArtifact, remedy="copy it again")
    for export, entry in manifest.exports.items():
        if name := next(filter(read_by_a_load, entry.files), None):
            raise InvalidArtifact(
                f"an export must have files of its own, but {path} gives {export} the file {name}, which a load of the "
                "model reads; copy it again"
            )
    return manifest


def unlisted(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Return the names in a folder that a load reads although the manifest does not list them."""
    for name in file_names(folder):
        if name not in manifest.files and read_by_a_load(name):
            yield name


def file_names(folder: Path) -> list[str]:
    """Return the names of all files in a model's folder, and in the folders of its modules, in order."""
    modules = (path for path in folder.iterdir() if path.is_dir() and fnmatchcase(path.name, MODULE_FOLDERS))
    paths = (path for place in (folder, *modules) for path in place.iterdir() if not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def refuse_deployment(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that holds an export without the model's weights.

    Raises:
        InvalidArtifact: it is one.
    """
    if "deployed_from" in (manifest.model_extra or {}):
        raise InvalidArtifact(
            f"the model must have its weights, but {folder} is a deployment, which whet.load runs; give the model "
            "that it was made from"
        )
