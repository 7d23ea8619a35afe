"""A folder with a model, as the runner reads it: labels, length, exports and measurements, without pydantic or torch.

A manifest is trusted no further than elsewhere: names are those of files in the folder, every file that is read must be
listed, and its digest must fit. Measurements only guide choices, so that a damaged row is passed over.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidArtifact, InvalidModel
from whet.tasks.sentences import MODULES, SETTINGS, TRANSFORMER, SentenceModules
from whet.utils.commands import export_command
from whet.utils.inputs import exists, one_line, require_folder
from whet.utils.lengths import longest_input
from whet.utils.manifests import (
    CONFIG,
    COPY_OR_RENEW,
    LARGEST_MANIFEST,
    MANIFEST,
    MEASUREMENTS,
    fault_of,
    file_name,
    made_from,
)

__all__ = ["ModelFolder", "RecordedTarget"]

BEST = "best"
"""The folder of a search that holds its best model."""


class RecordedTarget(NamedTuple):
    """A row of measurements."""

    runtime: str
    precision: str
    latency: float | None
    """Median for a single text, in ms."""
    max_length: int | None
    """Longest input in tokens, as asked for."""


class ModelFolder:
    """A model's folder; `manifest` is empty for one that whet did not write."""

    def __init__(self, path: Path) -> None:
        require_folder(path, what="the model", error=InvalidModel)
        if not exists(path / MANIFEST) and exists(path / "search.json"):
            raise InvalidModel(
                f"the model must be the folder of one, but got a search's, {path}; its best model is in {path / BEST}"
            )
        self.path = path
        self.manifest: Mapping[str, Any] = self._read_manifest() if exists(path / MANIFEST) else {}

    @property
    def is_own(self) -> bool:
        """Whether whet wrote it."""
        return bool(self.manifest)

    @property
    def has_weights(self) -> bool:
        """Whether PyTorch can run it; a deployment holds an export alone."""
        return not self.is_own or any(name.endswith(".safetensors") for name in self.manifest["files"])

    @property
    def exports(self) -> list[tuple[str, str]]:
        """The runtimes and precisions that it was exported for."""
        known = [tuple(key.split(" ")) for key in self.manifest.get("exports", {})]
        return [(key[0], key[1]) for key in known if len(key) == 2]

    @property
    def is_deployment(self) -> bool:
        """Whether it was written to run an export, without the model's weights."""
        return "deployed_from" in self.manifest

    @property
    def target(self) -> tuple[str, str] | None:
        """The runtime and precision that it was made for; None if the manifest names none."""
        target = self.manifest.get("target")
        if not isinstance(target, dict):
            return None
        return str(target.get("runtime")), str(target.get("precision"))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration."""
        return self.read_json(CONFIG)

    @property
    def kind(self) -> str:
        """The name of the kind of its answers; older folders do not say it, and hold classifiers and regressors."""
        said = self.manifest.get("kind")
        return said if isinstance(said, str) else "regression" if len(self.labels) == 1 else "classification"

    @cached_property
    def sentences(self) -> SentenceModules | None:
        """What sentence-transformers wrote around the model; None if it did not write it.

        Exports pool and normalize by themselves, so that pooling is not read.
        """
        if not self.lists(MODULES):
            return None
        settings, transformer = (self.read_json(name) if self.lists(name) else {} for name in (SETTINGS, TRANSFORMER))
        classes = [str(one.get("type")) for one in _json(self.file(MODULES), list) if isinstance(one, dict)]
        length = transformer.get("max_seq_length")
        return SentenceModules(
            pooling=(),
            normalize=any(name.endswith(".Normalize") for name in classes),
            max_length=length if isinstance(length, int) else None,
            settings=settings,
        )

    @property
    def longest_input(self) -> int | None:
        """Tokens of the longest input that the model can read; None if nothing says it."""
        own = None if self.sentences is None else self.sentences.max_length
        lengths = [length for length in (own, longest_input(self.config)) if length]
        return min(lengths, default=None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of every output of the head, in order."""
        known = self.config.get("id2label") or {i: f"LABEL_{i}" for i in range(self.config.get("num_labels", 2))}
        try:
            return tuple(str(known[i]) for i in sorted(known, key=int))
        except (TypeError, ValueError) as error:
            raise InvalidArtifact(
                f"id2label must have a name for every number, but {self.path / CONFIG} has {one_line(known, 80)}; "
                "correct it"
            ) from error

    def measured_length(self, target: tuple[str, str]) -> int | None:
        """Return the largest number of tokens that the model was last measured with, in a target if it was there."""
        rows = [row for row in self.recorded if row.max_length is not None]
        lengths = [row.max_length for row in rows if row[:2] == target] or [row.max_length for row in rows]
        deployed = self.manifest.get("max_length")
        return lengths[-1] if lengths else deployed if isinstance(deployed, int) else None

    @cached_property
    def recorded(self) -> list[RecordedTarget]:
        """What was measured, oldest first."""
        path = self.path / MEASUREMENTS
        if not path.is_file():
            return []
        return list(_rows(path.read_bytes().splitlines()))

    def export_files(self, runtime: str, precision: str) -> list[Path]:
        """Return the files of an export, after comparing each with its digest.

        Raises:
            InvalidArtifact: there is no such export, a file differs, or it was made from another model.
        """
        entry = self.manifest["exports"][f"{runtime} {precision}"]
        own = self.manifest.get("deployed_from") == entry["model"] or made_from(self.manifest["files"], entry["model"])
        if not own:
            raise InvalidArtifact(
                f"an export must belong to the model beside it, but the one for {runtime} {precision} in {self.path} "
                f"was made from another; {export_command(self.path, runtime, precision)}"
            )
        return [self._checked(name, known) for name, known in entry["files"].items()]

    def file(self, name: str) -> Path:
        """Return a file that was saved with the model, after comparing it with its digest if whet wrote it.

        Raises:
            InvalidArtifact: it is missing, altered, or not listed.
        """
        if not self.is_own:
            return self.path / name
        known = self.manifest["files"].get(name)
        if known is None:
            raise InvalidArtifact(f"{self.path / MANIFEST} must list {name}, but it does not; {COPY_OR_RENEW}")
        return self._checked(name, known)

    def lists(self, name: str) -> bool:
        """Return whether a file was saved with the model."""
        return name in self.manifest["files"] if self.is_own else (self.path / name).is_file()

    def read_json(self, name: str) -> Mapping[str, Any]:
        """Return the object in a file that was saved with the model; see `file`."""
        found: Mapping[str, Any] = _json(self.file(name), dict)
        return found

    def _checked(self, name: str, known: str) -> Path:
        if fault := fault_of(self.path, name, known):
            raise InvalidArtifact(f"files must match the manifest, but {self.path / name} {fault}; {COPY_OR_RENEW}")
        return self.path / name

    def _read_manifest(self) -> Mapping[str, Any]:
        fault = fault_of(self.path, MANIFEST, None)
        if fault is not None:
            raise InvalidArtifact(f"{self.path} must hold a readable {MANIFEST}, but it {fault}; copy it again")
        manifest: Mapping[str, Any] = _json(self.path / MANIFEST, dict)
        try:
            exports = dict(manifest.get("exports", {}))
            for files in (manifest["files"], *(entry["files"] for entry in exports.values())):
                for name, known in files.items():
                    file_name(name)
                    if not isinstance(known, str):
                        raise ValueError(f"the digest of {name} must be text")
            for entry in exports.values():
                _ = entry["model"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidArtifact(
                f"{self.path / MANIFEST} must be as whet wrote it, but {type(error).__name__}: {one_line(error, 200)}; "
                "copy it again"
            ) from error
        return manifest


def _json(path: Path, wanted: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """Return the value in a JSON file, which must be of a type."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_MANIFEST + 1)
        if len(text) > LARGEST_MANIFEST:
            raise ValueError(f"it has more than {LARGEST_MANIFEST:,} bytes")
        value = json.loads(text)
        if not isinstance(value, wanted):
            raise ValueError(f"it holds no {'object' if wanted is dict else 'list'}")
    except FileNotFoundError as error:
        raise InvalidModel(f"the model must have a {path.name}, but {path.parent} has none; check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArtifact(f"{path} must be a JSON file, but {one_line(error, 200)}; copy it again") from error
    return value


def _rows(lines: list[bytes]) -> Iterator[RecordedTarget]:
    for line in lines:
        try:
            row = json.loads(line)
            conditions = row["conditions"]
            latencies = {one["metric"]: float(one["value"]) for one in row["measurements"]}
            length = conditions.get("max_length")
            yield RecordedTarget(
                str(conditions["runtime"]),
                str(conditions["precision"]),
                latencies.get("latency_median"),
                length if isinstance(length, int) else None,
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
