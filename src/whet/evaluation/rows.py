"""The rows of a benchmark: which models run where, and what the runtimes read there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidParameter, MissingResource, OutputNotWritten, WhetError
from whet.models.artifact import has_export
from whet.run.folder import ModelFolder
from whet.run.kinds.base import predictor_named
from whet.runtimes.base import ExportRuntime, Runtime, require_known_precisions, runtime_named
from whet.runtimes.export import CALIBRATION, ExportSettings
from whet.runtimes.export_cache import ExportCache
from whet.tasks.base import Task
from whet.utils.inputs import one_line
from whet.utils.manifests import is_artifact
from whet.utils.precision import FP32, PYTORCH
from whet.utils.progress import note

__all__ = [
    "BenchmarkRow",
    "LeftOut",
    "answering_texts",
    "deployments",
    "kept_files",
    "require_calibration_data",
    "rows_of",
    "say_left_out",
    "usable_targets",
    "where_exported",
    "where_kept",
    "with_data",
]


class BenchmarkRow(NamedTuple):
    """One model where it is to run."""

    source: str | Path
    """Folder or hub name."""
    runtime: str = PYTORCH
    precision: str = FP32

    @property
    def place(self) -> str:
        """The runtime, and the precision unless it is fp32."""
        return self.runtime if self.precision == FP32 else f"{self.runtime} {self.precision}"


LeftOut = Callable[[BenchmarkRow, Exception], None]
"""What to do with a row that cannot be measured: raise the error, or say it."""


def rows_of(
    sources: Sequence[str | Path], runtimes: Sequence[str] | None, precisions: Sequence[str], *, device: str
) -> list[BenchmarkRow]:
    """Return every model in every runtime and precision, models changing first.

    Args:
        sources: folders or hub names.
        runtimes: names; None means PyTorch for all, and then where each folder is deployed.
        precisions: of the runtimes other than pytorch, as far as they know them.
        device: as torch names it.

    Raises:
        UnknownName, InvalidParameter: there is no such runtime or precision, or none of them can be used here.
    """
    if runtimes is None:
        deployed = [row for source in dict.fromkeys(sources) for row in deployments(source, device=device)]
        return [*map(BenchmarkRow, sources), *deployed]
    targets = usable_targets(runtimes, precisions, device=device)
    return [BenchmarkRow(source, *target) for target in targets for source in sources]


def usable_targets(runtimes: Sequence[str], precisions: Sequence[str], *, device: str) -> list[tuple[str, str]]:
    """Return each runtime with those of the precisions that it knows and this machine can compute in.

    Raises:
        UnknownName, InvalidParameter: see `rows_of`.
    """
    require_known_precisions(precisions)
    return [
        (name, precision)
        for name in dict.fromkeys(runtimes)
        for precision in _usable(runtime_named(name), precisions, device)
    ]


def _usable(runtime: Runtime, precisions: Sequence[str], device: str) -> list[str]:
    """The precisions that can be used here; those that the machine cannot compute in are left out, which is said."""
    wanted = [own for own in runtime.precisions if own in precisions]
    if not isinstance(runtime, ExportRuntime) or len(wanted) < 2:
        return runtime.supported(precisions, device=device)
    usable: list[str] = []
    refusals: dict[str, InvalidParameter] = {}
    for precision in wanted:
        try:
            usable += runtime.supported([precision], device=device)
        except InvalidParameter as error:
            refusals[precision] = error
    if not usable:
        raise next(iter(refusals.values()))
    for precision, refusal in refusals.items():
        note(f"{runtime.name()} {precision} is left out: {refusal}")
    return usable


def deployments(source: str | Path, *, device: str = "cpu") -> list[BenchmarkRow]:
    """Return where a folder's model runs besides PyTorch: what a search chose it for, or else each of its exports.

    An export that cannot be used here is left out, which is said.

    Raises:
        InvalidArtifact: the manifest cannot be read.
    """
    return list(_deployments(source, device)) if is_artifact(source) else []


def _deployments(source: str | Path, device: str) -> Iterator[BenchmarkRow]:
    folder = ModelFolder(Path(source))
    target = folder.target
    if target is not None and target[0] == PYTORCH:
        return
    for export in [target] if target in folder.exports else folder.exports:
        row = BenchmarkRow(source, *export)
        try:
            where_exported(row, device=device)
        except WhetError as error:
            say_left_out(row, error)
        else:
            yield row


def where_exported(row: BenchmarkRow, *, device: str) -> tuple[Path, ...] | None:
    """Return what the runtime reads instead of the model's weights; None for an export that must be made.

    Raises:
        InvalidParameter, UnknownName: the runtime cannot be used here.
        InvalidArtifact: the folder's export was altered, or belongs to other weights.
    """
    runtime = runtime_named(row.runtime)
    runtime.require(row.precision, device=device)
    if isinstance(runtime, ExportRuntime) and not has_export(row.source, row.runtime, row.precision):
        return None
    return tuple(runtime.files(Path(row.source), row.precision))


def where_kept(
    rows: Sequence[BenchmarkRow], task: Task, cache: ExportCache, *, settings: ExportSettings, left_out: LeftOut
) -> dict[BenchmarkRow, Path]:
    """Return the folder of an export in the cache for each row of models that have none, as far as it can be made."""
    found: dict[BenchmarkRow, Path] = {}
    for source in dict.fromkeys(row.source for row in rows):
        own = {(row.runtime, row.precision): row for row in rows if row.source == source}
        chosen = [(_exporter(runtime), precision) for runtime, precision in own]
        try:
            made = cache.folders(source, chosen, replace(settings, task=task))
        except (OutputNotWritten, MemoryError):
            raise
        except Exception as error:  # of the step that all of them share
            made = dict.fromkeys(own, error)
        for target, folder in made.items():
            if isinstance(folder, Path):
                found[own[target]] = folder
            else:
                left_out(own[target], folder)
    return found


def kept_files(folder: Path, row: BenchmarkRow) -> tuple[Path, ...]:
    """Return what the runtime reads in a folder of the cache."""
    return tuple(folder / name for name in sorted(_exporter(row.runtime).all_read(folder, row.precision)))


def with_data(
    rows: Sequence[BenchmarkRow], files: Mapping[BenchmarkRow, Any], task: Task, left_out: LeftOut
) -> list[BenchmarkRow]:
    """Return the rows without those that must be exported and lack the data for it.

    Args:
        rows: all of them.
        files: what the runtime of each reads; None for an export that must be made.
        task: gives the data.
        left_out: what to do with a row that lacks them.
    """
    kept = []
    for row in rows:
        try:
            if files[row] is None:
                require_calibration_data(row, task)
        except MissingResource as error:
            left_out(row, error)
        else:
            kept.append(row)
    return kept


def answering_texts(rows: Sequence[BenchmarkRow], task: Task, left_out: LeftOut) -> list[BenchmarkRow]:
    """Return the rows in which `whet.load` answers texts: models of a few kinds do it in PyTorch alone."""
    if predictor_named(task.kind.name()).runs_exports:
        return list(rows)
    refusal = InvalidParameter(
        f"a model for {task.kind.name().replace('_', ' ')} must run in pytorch to answer texts; time it without them"
    )
    for row in rows:
        if row.runtime != PYTORCH:
            left_out(row, refusal)
    return [row for row in rows if row.runtime == PYTORCH]


def require_calibration_data(row: BenchmarkRow, task: Task) -> None:
    """Check that there are data to make an export from.

    Raises:
        MissingResource: it needs calibration data, and the task has too little training data.
    """
    known, least = len(task.splits.train), CALIBRATION.batch_size
    if row.precision in _exporter(row.runtime).calibrated and known < least:
        raise MissingResource(
            f"{row.precision} in {row.runtime} must be calibrated on training data, but got "
            f"{f'{known} examples of {least}' if known else 'none'}; give --train-file"
        )


def _exporter(name: str) -> ExportRuntime:
    runtime = runtime_named(name)
    assert isinstance(runtime, ExportRuntime)
    return runtime


def say_left_out(row: BenchmarkRow, error: Exception) -> None:
    """Say in one sentence which row is left out, and why."""
    name = Path(row.source).resolve().name if Path(row.source).exists() else row.source
    note(f"{name} in {row.place} is left out: {one_line(error, 300)}")
