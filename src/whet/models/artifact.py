"""A compressed model as a folder that transformers reads.

`config.json` carries the structure in `quantization_config` under quant_method "whet" (see `quantizer`); beside the
weights lie the tokenizer, the recipe, the measurements, a model card, and a manifest with the digest of every file.
"""

import importlib.metadata
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from whet.errors import InvalidArtifact, InvalidModel
from whet.models.inference import kind_of_model
from whet.models.load import load_tokenizer, load_unverified
from whet.models.manifest import (
    ExportEntry,
    Manifest,
    ShardIndex,
    file_names,
    read_manifest,
    refuse_deployment,
    unlisted,
)
from whet.models.registration import save_as_stored
from whet.models.reloading import check_reloaded
from whet.models.sentence import keep_dimensions, require_vectors, sentence_files, without_modules
from whet.models.surgery import copy_sharing_parameters
from whet.utils.commands import export_command
from whet.utils.files import digest, not_written, remove, write_text
from whet.utils.inputs import require_folder
from whet.utils.manifests import (
    CONFIG,
    COPY_OR_RENEW,
    MANIFEST,
    NOTES,
    RECIPE,
    SHARDS,
    WEIGHTS,
    fault_of,
    is_artifact,
    read_by_a_load,
)
from whet.utils.outputs import new_folder
from whet.utils.precision import FP32
from whet.utils.progress import detail, without_foreign_bars
from whet.utils.schema import from_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "LoadedModel",
    "add_export",
    "check_source",
    "copy_files",
    "exported",
    "has_export",
    "load_any",
    "load_verified",
    "load_with_tokenizer",
    "model_digest",
    "save_files",
    "verify",
    "versions",
    "write_notes",
]

_PACKAGES = ("whet", "torch", "transformers", "numpy")


class LoadedModel(NamedTuple):
    """What `load_with_tokenizer` reads from a folder."""

    model: "PreTrainedModel"
    """In fp32 and eval mode."""
    tokenizer: "PreTrainedTokenizerBase"


def save_files(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    *,
    about: Mapping[str, Any],
    files: Mapping[str, bytes],
    overwrite: bool = False,
) -> None:
    """Write a model and the files that describe it; the folder appears whole or not at all.

    What was written is loaded again before it gets its name, and must answer as the model does.

    Args:
        model: dense or compressed.
        tokenizer: saved beside it.
        folder: the artifact to write.
        about: entries of the manifest, such as where the model comes from.
        files: contents of more files, by name.
        overwrite: whether an existing folder may be replaced.

    Raises:
        OutputExists, OutputNotWritten: the folder exists or cannot be written.
        InvalidModel: the written model cannot be loaded, or gives other answers.
    """
    saved = copy_sharing_parameters(model)  # saving writes to the configuration
    save_as_stored(saved)
    whole = {**files, **sentence_files(saved.config)}
    without_modules(saved.config)
    with new_folder(folder, overwrite=overwrite) as draft, without_foreign_bars():
        saved.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        for name, content in whole.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(content)
        check_reloaded(model, draft)
        known = {"kind": kind_of_model(model).name(), **about}
        manifest = Manifest(files=_digests(draft), versions=versions(), **known)
        (draft / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def load_any(source: str | Path, *, kind: str | None = None) -> "PreTrainedModel":
    """Load a model from an artifact, whose digests are checked first, or from another folder or hub name.

    Args:
        source: folder or hub name.
        kind: name of the kind of its answers, where the source does not tell.

    Raises:
        InvalidArtifact: a file is missing, truncated or altered.
        InvalidModel: it cannot be loaded, or is of another kind.
    """
    check_source(source)
    return load_unverified(source, kind=kind)


def load_with_tokenizer(
    source: str | Path, *, device: str = "cpu", kind: str | None = None, dimensions: int | None = None
) -> LoadedModel:
    """Load a model with its tokenizer, after one check of the digests of both; see `load_any`.

    Args:
        source: folder or hub name.
        device: where to put the model, as torch names it.
        kind: name of the kind of its answers, where the source does not tell.
        dimensions: how many leading dimensions its vectors keep; all if None.

    Raises:
        InvalidParameter: it gives no vectors, or shorter ones.
    """
    check_source(source)
    detail(f"loading {source}")
    model, tokenizer = load_unverified(source, kind=kind), load_tokenizer(source)
    if dimensions is not None:
        require_vectors(kind_of_model(model), "--dimensions")
        keep_dimensions(model.config, dimensions)
    model.to(device)
    return LoadedModel(model, tokenizer)


def load_verified(folder: Path) -> "PreTrainedModel":
    """Return the model of an artifact, after checking that no file was altered.

    Raises:
        InvalidArtifact: a file is missing, truncated or altered, or the folder has no manifest.
        InvalidModel: it cannot be loaded.
    """
    verify(folder)
    return load_unverified(folder)


def check_source(source: str | Path) -> str | Path:
    """Verify a model if it is an artifact, and return its folder or name; nothing is known of the files of others.

    Raises:
        InvalidArtifact: a file is missing, truncated or altered.
    """
    if is_artifact(source):
        verify(Path(source))
    return source


def verify(folder: Path) -> None:
    """Check that loading an artifact reads the files that were saved, and no others.

    Files that describe the model must only exist: a card edited, or a record cut short, must not lose the model. What
    others put into the folder matters only if a load would read it.

    Raises:
        InvalidArtifact: a file is missing, truncated or altered, or is read although the manifest does not list it, or
            the manifest cannot be read.
    """
    manifest = read_manifest(folder)
    refuse_deployment(folder, manifest)
    for pattern in (CONFIG, WEIGHTS):
        if not any(fnmatchcase(name, pattern) for name in manifest.files):
            raise InvalidArtifact(
                f"{folder / MANIFEST} must list the model's files, but it lists no {pattern}; copy it again"
            )
    for name in unlisted(folder, manifest):
        raise InvalidArtifact(
            f"a load must read only files that whet wrote, but {folder / MANIFEST} does not list {name}, which a load "
            "reads; remove it"
        )
    for name, known in manifest.files.items():
        if name in NOTES or name == RECIPE or read_by_a_load(name):
            _check(folder, name, known)
    if SHARDS in manifest.files:
        _check_shards(folder, manifest)


def _check(folder: Path, name: str, known: str) -> None:
    """Compare a file of the model with its digest."""
    fault = fault_of(folder, name, None if name in NOTES else known)
    if fault == "is missing":
        raise InvalidArtifact(f"every file of the manifest must be there, but {folder} lacks {name}; copy it again")
    if fault is not None:
        raise InvalidArtifact(f"files must match the manifest, but {folder / name} {fault}; {COPY_OR_RENEW}")


def _check_shards(folder: Path, manifest: Manifest) -> None:
    """Check that the index of weights, whose digest is right, names only weights of the manifest."""
    index = from_json(
        ShardIndex,
        (folder / SHARDS).read_bytes(),
        what=str(folder / SHARDS),
        error=InvalidArtifact,
        remedy="copy it again",
    )
    if strangers := sorted(set(index.weight_map.values()) - manifest.files.keys()):
        raise InvalidArtifact(
            f"{folder / SHARDS} must name files of the manifest, but got {strangers[0]!r}; remove the folder"
        )


def model_digest(folder: Path) -> str:
    """Return one digest of the model's own files, without those that describe it.

    Raises:
        InvalidArtifact: the manifest cannot be read.
    """
    return read_manifest(folder).digest


def write_notes(folder: Path, notes: Mapping[str, str]) -> None:
    """Replace texts that describe the model, such as its card; its own files stay as they are.

    The caller holds the folder (see `whet.utils.outputs`), here and in `add_export`.

    Args:
        folder: the artifact.
        notes: contents by the name of the file.

    Raises:
        InvalidArtifact: the manifest cannot be read.
        OutputNotWritten: the folder cannot be written.
    """
    manifest = read_manifest(folder)
    for name, text in notes.items():
        write_text(folder / name, text)
    files = {**manifest.files, **{name: digest(folder / name) for name in notes}}
    write_text(folder / MANIFEST, manifest.with_entries(files=files).to_json())


def add_export(folder: Path, runtime: str, precision: str, files: Sequence[Path], about: Mapping[str, Any]) -> None:
    """Move an export's files beside the weights that it was made from; they replace an older export.

    Args:
        folder: the artifact.
        runtime: its name.
        precision: as the runtime names it.
        files: where they are now, on the same disk; they are moved.
        about: what is known of it, for the manifest.

    Raises:
        InvalidArtifact: the folder's manifest cannot be read.
        OutputNotWritten: the folder cannot be written.
    """
    manifest = read_manifest(folder)
    entry = ExportEntry(**about, files={path.name: digest(path) for path in files}, model=manifest.digest)
    known = {
        **{key: one for key, old in manifest.exports.items() if (one := _beside(old, entry))},
        f"{runtime} {precision}": entry,
    }
    entries = {key: one.to_dict() for key, one in known.items()}
    # listed before they are there: a kill between the two leaves no file that looks like another's
    write_text(folder / MANIFEST, manifest.with_entries(exports=entries).to_json())
    try:
        for path in files:
            path.replace(folder / path.name)
    except OSError as error:
        raise not_written(folder, error) from error
    former = manifest.exports.get(f"{runtime} {precision}")
    listed = {name for one in known.values() for name in one.files}
    remove(*(folder / name for name in (former.files if former else ()) if name not in listed))


def _beside(old: ExportEntry, new: ExportEntry) -> ExportEntry | None:
    """Return the entry of an older export once a new one is written, or None if it belongs to other weights.

    Precisions may read the same files, which are never written to the same bytes twice.
    """
    if not old.files.keys() & new.files.keys():
        return old
    return old.model_copy(update={"files": {**old.files, **new.files}}) if old.model == new.model else None


def copy_files(
    folder: Path,
    to: Path,
    *,
    export: tuple[str, str] | None,
    about: Mapping[str, Any],
    notes: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Copy an artifact, with one of its exports or none; the new folder appears whole or not at all.

    Args:
        folder: the artifact.
        to: the folder to write.
        export: the runtime and precision of the export to copy.
        about: more entries for the manifest.
        notes: texts that describe the copy, by the name of the file.
        overwrite: whether an existing folder may be replaced.

    Raises:
        InvalidArtifact: it was not exported for that.
        OutputExists, OutputNotWritten: the folder exists or cannot be written.
    """
    manifest = read_manifest(folder)
    exports = {} if export is None else {" ".join(export): exported(folder, *export)}
    wanted = {*manifest.files, *(name for entry in exports.values() for name in entry.files)}
    with new_folder(to, overwrite=overwrite) as draft:
        for name in sorted(wanted):
            (draft / name).parent.mkdir(exist_ok=True)
            shutil.copy2(folder / name, draft / name)
        for name, text in notes.items():
            (draft / name).write_text(text, encoding="utf-8")
        files = {**manifest.files, **{name: digest(draft / name) for name in notes}}
        kept = {key: entry.to_dict() for key, entry in exports.items()} or None
        copied = manifest.with_entries(files=files, exports=kept, **about)
        (draft / MANIFEST).write_text(copied.to_json(), encoding="utf-8")


def has_export(source: str | Path, runtime: str, precision: str) -> bool:
    """Return whether a source is an artifact whose manifest lists an export; `exported` checks it.

    Raises:
        InvalidArtifact: the manifest cannot be read.
    """
    return is_artifact(source) and f"{runtime} {precision}" in read_manifest(Path(source)).exports


def exported(folder: Path, runtime: str, precision: str = FP32) -> ExportEntry:
    """Return the manifest's entry for an export, after checking that it belongs to the weights beside it.

    Raises:
        InvalidArtifact: there is none, it was altered, or the weights are others than it was made from.
    """
    remedy = export_command(folder, runtime, precision)
    require_folder(folder, what="the model", error=InvalidModel)
    if not is_artifact(folder):
        raise InvalidArtifact(
            f"a model that runs in {runtime} must be a folder that whet wrote, but got {folder}; fine-tune, distil or "
            f"compress it first, then {export_command('OUT', runtime, precision)}"
        )
    manifest = read_manifest(folder)
    entry = manifest.exports.get(f"{runtime} {precision}")
    if entry is None:
        raise InvalidArtifact(f"{folder} must hold an export for {runtime} in {precision}, but it has none; {remedy}")
    stale = [name for name, known in entry.files.items() if fault_of(folder, name, known)]
    if stale or not manifest.is_of(entry):
        what = ", ".join(stale) or "another model"
        raise InvalidArtifact(
            f"the export for {runtime} must belong to the weights beside it, but {folder} holds {what} that does not; "
            f"{remedy}"
        )
    return entry


def versions(*more: str) -> dict[str, str]:
    """Return the versions that results depend on, and those of more packages as far as they are installed."""
    known = {"python": platform.python_version()}
    for name in (*_PACKAGES, *more):
        with suppress(importlib.metadata.PackageNotFoundError):
            known[name] = importlib.metadata.version(name)
    return known


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files of a model."""
    return {name: digest(folder / name) for name in file_names(folder)}
