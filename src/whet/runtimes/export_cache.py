"""Exports of models that have none, kept for the next time: each in a folder named by what it is made from.

A folder holds what a runtime reads, and `export.json` with the digest of each file. It has one writer and appears
whole; one that does not match its digests is made anew. Any folder may be deleted. Nothing is written beside a user's
model.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from whet.errors import InvalidArtifact, OutputNotWritten, WhetError
from whet.models.artifact import versions
from whet.models.load import source_digest
from whet.runtimes.base import ExportRuntime
from whet.runtimes.export import ExportSettings, made_exports
from whet.utils.files import can_write, check_path, digest, json_digest, remove
from whet.utils.hardware import supports_products
from whet.utils.manifests import fault_of
from whet.utils.outputs import adding_to, new_folder
from whet.utils.progress import note
from whet.utils.schema import from_json
from whet.utils.scratch import temporary_folder

__all__ = ["ExportCache", "export_cache"]

ENTRY = "export.json"
"""What a folder of the cache says of itself."""
VARIABLE = "WHET_CACHE"
"""The environment variable that names the cache."""
_FORMAT = 1
"""Raised when the same inputs give other files."""
_CONVERTERS = ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
"""Packages that exports depend on, besides those of every result."""

Chosen = Sequence[tuple[ExportRuntime, str]]
"""Runtimes, each with a precision that it knows."""


class _Entry(BaseModel):
    """What `export.json` holds."""

    files: dict[str, str]
    """Digests by name."""


@dataclass(frozen=True)
class ExportCache:
    """A folder of exports."""

    folder: Path
    """Where they are."""
    spare: ExitStack
    """Ends with the use of the cache; a temporary folder that stands in for the cache ends with it."""

    def folders(
        self,
        model: str | Path,
        chosen: Chosen,
        settings: ExportSettings,
    ) -> dict[tuple[str, str], Path | Exception]:
        """Return the folder of a model's export for each runtime and precision, or why it cannot be made.

        Args:
            model: folder or hub name, which loads.
            chosen: what for.
            settings: how; the task is read only where a precision needs calibration data.

        Raises:
            OutputNotWritten: the disk is full, for one.
        """
        identity = source_digest(model)
        keys = {(one.name(), precision): _key(identity, one, precision, settings) for one, precision in chosen}
        found: dict[tuple[str, str], Path | Exception] = {
            (one.name(), precision): self.folder / keys[one.name(), precision]
            for one, precision in chosen
            if _is_whole(self.folder / keys[one.name(), precision], one, precision)
        }
        missing = [(one, precision) for one, precision in chosen if (one.name(), precision) not in found]
        if missing:
            places = {
                (one.name(), precision): self._writable / keys[one.name(), precision] for one, precision in missing
            }
            found |= _filled(model, missing, places, settings)
        return found

    @cached_property
    def _writable(self) -> Path:
        """The folder, or a temporary one where it cannot be written, which is said."""
        if _can_hold(self.folder):
            return self.folder
        note(f"{self.folder} cannot be written, so exports are kept in a temporary folder; --cache names another")
        return self.spare.enter_context(temporary_folder())


@contextmanager
def export_cache(folder: str | Path | None = None) -> Iterator[ExportCache]:
    """Yield the cache of exports.

    Args:
        folder: where it is; if None, the folder that WHET_CACHE names, or whet below XDG_CACHE_HOME or ~/.cache.

    Raises:
        OutputNotWritten: `folder` is given, and cannot be written.
    """
    if folder is not None:
        check_path(Path(folder), "the cache")
        if not _can_hold(Path(folder)):
            raise OutputNotWritten(f"the cache must be a folder that can be written, but got {folder}; name another")
    with ExitStack() as spare:
        yield ExportCache((_usual_place() if folder is None else Path(folder)) / "exports", spare)


def _usual_place() -> Path:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if base.is_absolute():
        return base / "whet"
    try:
        return Path.home() / ".cache" / "whet"
    except RuntimeError:  # there is no home
        return Path(os.devnull)


def _can_hold(folder: Path) -> bool:
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError:
        return False
    return existing.is_dir() and can_write(existing)


def _key(model: str, runtime: ExportRuntime, precision: str, settings: ExportSettings) -> str:
    """Return a digest of all that an export depends on."""
    calibration: Mapping[str, Any] = {}
    if precision in runtime.calibrated and settings.task is not None:
        sample = {"seed": settings.seed, **asdict(settings.calibration)}
        calibration = {"data": settings.task.splits.train.digest(), **sample}
    made_from = {
        "format": _FORMAT,
        "model": model,
        "runtime": runtime.name(),
        "precision": precision,
        "calibration": calibration,
        "opset": settings.opset,
        "int8 instructions": supports_products("int8"),  # without them, weights get 7 bits
        "versions": versions(*_CONVERTERS),
    }
    return json_digest(made_from)


def _is_whole(place: Path, runtime: ExportRuntime, precision: str) -> bool:
    """Return whether a folder holds an export whose files all match their digests."""
    try:
        text = (place / ENTRY).read_bytes()
        entry = from_json(_Entry, text, what=str(place), error=InvalidArtifact, remedy="delete it")
        if any(Path(name).name != name or fault_of(place, name, known) for name, known in entry.files.items()):
            return False
        return runtime.all_read(place, precision) <= entry.files.keys()
    except (OSError, WhetError):
        return False


def _filled(
    model: str | Path,
    missing: Chosen,
    places: Mapping[tuple[str, str], Path],
    settings: ExportSettings,
) -> dict[tuple[str, str], Path | Exception]:
    """Make exports, each in its place; another process may be making them, and is waited for."""
    with ExitStack() as held:
        for place in sorted(places.values()):  # in one order, so that no two processes wait for each other
            held.enter_context(adding_to(place, wait=True))
        left = [target for target in missing if not _is_whole(places[target[0].name(), target[1]], *target)]
        if not left:
            return dict(places)
        done: dict[tuple[str, str], Path | Exception] = {
            key: place for key, place in places.items() if key not in {(one.name(), p) for one, p in left}
        }
        names = ", ".join(f"{one.name()} {precision}" for one, precision in left)
        shown = Path(model).resolve().name if Path(model).exists() else model
        note(f"exporting {shown} for {names}, kept for the next time in {next(iter(places.values())).parent}")
        task = settings.task if any(precision in one.calibrated for one, precision in left) else None
        draft = held.enter_context(temporary_folder())
        size = 0

        def failed(runtime: str, precision: str, error: Exception) -> None:
            done[runtime, precision] = error

        for made in made_exports(model, left, draft, settings=replace(settings, task=task), failed=failed):
            place = places[made.runtime, made.precision]
            remove(place)
            size += _keep(made.files, place)
            done[made.runtime, made.precision] = place
        note(f"exported: {size / 2**20:.0f} MiB")
    return done


def _keep(files: Sequence[Path], place: Path) -> int:
    """Move the files of an export to their place, and return their size in bytes."""
    entry = _Entry(files={path.name: digest(path) for path in files})
    size = sum(path.stat().st_size for path in files)
    with new_folder(place, overwrite=False) as draft:
        for path in files:
            shutil.move(path, draft / path.name)
        (draft / ENTRY).write_text(entry.model_dump_json(), encoding="utf-8")
    return size
