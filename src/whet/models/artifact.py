"""A compressed model as a folder that transformers reads.

`config.json` carries the structure in `quantization_config` under quant_method "whet" (see `quantizer`); beside the
weights lie the tokenizer, the recipe, the measurements, a model card, and a manifest with the digest of every file.
"""

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whet.errors import InvalidArtifact, OutputNotWritten
from whet.models.load import load_model
from whet.models.surgery import describe, to_storage
from whet.utils.files import digest, json_digest, write_text
from whet.utils.outputs import new_folder
from whet.utils.precision import FP32

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "CARD",
    "MANIFEST",
    "MEASUREMENTS",
    "RECIPE",
    "about",
    "add_export",
    "copy_files",
    "exported",
    "is_artifact",
    "load_any",
    "load_verified",
    "model_digest",
    "save_files",
    "verify",
    "versions",
    "write_notes",
]

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
MEASUREMENTS = "measurements.jsonl"
CARD = "README.md"
_NOTES = (CARD, MEASUREMENTS)
"""Files that describe the model. They may change after it is saved, so their digests are not checked."""
_PACKAGES = ("whet", "torch", "transformers", "numpy")


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

    Args:
        model: dense or compressed.
        tokenizer: saved beside it.
        folder: the artifact to write.
        about: entries of the manifest, such as where the model comes from.
        files: contents of more files, by name.
        overwrite: whether an existing folder may be replaced.

    Raises:
        OutputExists, OutputNotWritten: the folder exists or cannot be written.
    """
    stored = to_storage(model)
    structure = describe(stored)
    if structure:
        from whet.models.quantizer import WhetConfig  # slow to import

        stored.config.quantization_config = WhetConfig(structure)
    with new_folder(folder, overwrite=overwrite) as draft:
        stored.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        own = {path.name: digest(path) for path in sorted(draft.iterdir()) if path.is_file()}
        (draft / MANIFEST).write_text(_manifest(own, {**about, "versions": versions()}), encoding="utf-8")


def load_verified(folder: Path) -> "PreTrainedModel":
    """Return the model of an artifact, after checking that no file was altered.

    Raises:
        InvalidArtifact: a file is missing, truncated or altered.
        InvalidModel: it cannot be loaded.
    """
    verify(folder)
    return load_model(folder)


def is_artifact(folder: str | Path) -> bool:
    """Return whether a folder was written by `save_files`."""
    return (Path(folder) / MANIFEST).is_file()


def verify(folder: Path) -> None:
    """Compare every file of the model with its digest in the manifest; files that describe it must only exist.

    Raises:
        InvalidArtifact: a file is missing, truncated or altered, or the manifest cannot be read.
    """
    for name, expected in _read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise InvalidArtifact(f"every file of the manifest must be there, but {folder} lacks {name}; copy it again")
        # notes change after the model was saved: a card edited, or a record cut short, must not lose the model
        if name not in _NOTES and digest(path) != expected:
            raise InvalidArtifact(f"files must match the manifest, but {path} was truncated or altered; copy it again")


def model_digest(folder: Path) -> str:
    """Return one digest of the model's own files, without those that describe it."""
    files = _read_manifest(folder)["files"]
    own = {name: value for name, value in files.items() if name not in _NOTES}
    return json_digest(own)


def about(folder: Path) -> dict[str, Any]:
    """Return the manifest's entries besides the digests of files: origin, seed, versions, exports.

    Raises:
        InvalidArtifact: the manifest cannot be read.
    """
    return {key: value for key, value in _read_manifest(folder).items() if key != "files"}


def write_notes(folder: Path, notes: Mapping[str, str]) -> None:
    """Replace texts that describe the model, such as its card; its own files stay as they are.

    Args:
        folder: the artifact.
        notes: contents by the name of the file.

    Raises:
        InvalidArtifact: the manifest cannot be read.
        OutputNotWritten: the folder cannot be written.
    """
    manifest = _read_manifest(folder)
    for name, text in notes.items():
        write_text(folder / name, text)
    files = manifest["files"] | {name: digest(folder / name) for name in notes}
    write_text(folder / MANIFEST, _manifest(files, manifest))


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
    manifest = _read_manifest(folder)
    names = {path.name: digest(path) for path in files}
    try:
        for path in files:
            path.replace(folder / path.name)
    except OSError as error:
        raise OutputNotWritten(f"{folder} must be writable, but {error}; free some space or name another") from error
    entry = {**about, "files": names, "model": model_digest(folder)}
    known = {
        **{key: one for key, old in manifest.get("exports", {}).items() if (one := _beside(old, entry))},
        f"{runtime} {precision}": entry,
    }
    write_text(folder / MANIFEST, _manifest(manifest["files"], {**manifest, "exports": known}))


def _beside(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry of an older export once a new one is written, or None if it belongs to other weights.

    Precisions may read the same files, which are never written to the same bytes twice.
    """
    if not old["files"].keys() & new["files"].keys():
        return old
    return {**old, "files": {**old["files"], **new["files"]}} if old["model"] == new["model"] else None


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
    manifest = _read_manifest(folder)
    exports = {} if export is None else {" ".join(export): exported(folder, *export)}
    wanted = {*manifest["files"], *(name for entry in exports.values() for name in entry["files"])}
    with new_folder(to, overwrite=overwrite) as draft:
        for name in sorted(wanted):
            shutil.copy2(folder / name, draft / name)
        for name, text in notes.items():
            (draft / name).write_text(text, encoding="utf-8")
        others = {key: value for key, value in manifest.items() if key not in ("files", "exports")}
        if exports:
            others["exports"] = exports
        files = manifest["files"] | {name: digest(draft / name) for name in notes}
        (draft / MANIFEST).write_text(_manifest(files, {**others, **about}), encoding="utf-8")


def exported(folder: Path, runtime: str, precision: str = FP32) -> dict[str, Any]:
    """Return the manifest's entry for an export, after checking that it belongs to the weights beside it.

    Raises:
        InvalidArtifact: there is none, it was altered, or the weights are others than it was made from.
    """
    asked = "" if precision == FP32 else f" --precision {precision}"
    remedy = f"whet export {folder} --to {runtime}{asked}"
    if not is_artifact(folder):
        raise InvalidArtifact(
            f"a model that runs in {runtime} must be a folder that whet wrote, but got {folder}; fine-tune, distil or "
            f"compress it first, then whet export OUT --to {runtime}{asked}"
        )
    entry: dict[str, Any] | None = _read_manifest(folder).get("exports", {}).get(f"{runtime} {precision}")
    if entry is None:
        raise InvalidArtifact(f"{folder} must hold an export for {runtime} in {precision}, but it has none; {remedy}")
    stale = [name for name, known in entry["files"].items() if _missing_or_other(folder / name, known)]
    if stale or entry["model"] != model_digest(folder):
        what = ", ".join(stale) or "another model"
        raise InvalidArtifact(
            f"the export for {runtime} must belong to the weights beside it, but {folder} holds {what} that does not; "
            f"{remedy}"
        )
    return entry


def _missing_or_other(path: Path, known: str) -> bool:
    return not path.is_file() or digest(path) != known


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _manifest(files: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """Return the manifest's text: entries about the model, and the digests of its own files without exports."""
    own = {name: files[name] for name in sorted(files)}
    return json.dumps({**{key: value for key, value in about.items() if key != "files"}, "files": own}, indent=1) + "\n"


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArtifact(f"{folder} must hold a readable {MANIFEST}, but {error}; copy it again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InvalidArtifact(f"{folder / MANIFEST} must list the files, but it does not; copy it again")
    return manifest


def load_any(source: str | Path) -> "PreTrainedModel":
    """Load a model from an artifact, whose digests are checked first, or from another folder or hub name."""
    return load_verified(Path(source)) if is_artifact(source) else load_model(source)
