"""From a model to what other runtimes run, in four steps: write ONNX, convert it, open the result, compare logits.

`made_exports` gives files once their logits are the model's own, and `export_to` leaves them beside the weights.
`load_unsaved` leaves no files and compares nothing; it serves models that are only timed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from whet.calibration.resources import Calibration, prepare_resources, require_calibration
from whet.calibration.sensitivity import choose_fp32_layers, equalize_low_rank_layers, quantization_sensitivity
from whet.errors import InvalidModel, MissingResource, WhetError
from whet.models import artifact
from whet.models.architecture import dense_layers_in_blocks
from whet.models.inference import input_names, model_inputs, predict
from whet.models.load import check_head
from whet.run.sessions import Session
from whet.runtimes._onnx import to_onnx
from whet.runtimes.base import (
    TOLERANCE,
    Agreement,
    Conversion,
    ExportedModel,
    ExportRuntime,
    Runtime,
    agreement_with,
)
from whet.tasks.base import Task
from whet.tasks.data import Batch, Batches
from whet.tasks.kinds.base import Answers
from whet.utils.files import not_written, remove
from whet.utils.inputs import require_folder
from whet.utils.locks import EXPORT_DRAFT
from whet.utils.outputs import adding_to, set_rights
from whet.utils.parameters import check
from whet.utils.precision import FP32
from whet.utils.progress import track
from whet.utils.ranges import MaxKl, Opset, Seed, Threads
from whet.utils.scratch import temporary_folder

__all__ = ["CALIBRATION", "ExportSettings", "MadeExport", "export_to", "load_unsaved", "made_exports"]

CALIBRATION = Calibration(examples=300, batch_size=8)
"""The sample that ranges are taken from, if no other is given."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How models are exported."""

    task: Task | None = None
    """Gives calibration data and held-out training data; labels are not read, so that `unlabeled` tasks will do."""
    kind: str | None = None
    """The name of the kind of the model's answers, where its folder does not tell."""
    calibration: Calibration = CALIBRATION
    """The sample that ranges are taken from."""
    seed: Seed = 0
    """Of the sample."""
    max_kl: MaxKl | None = None
    """Largest mean KL on the held-out data, in nats."""
    threads: Threads | None = None
    """Of the comparison; as many as torch uses, if None."""
    opset: Opset | None = None
    """Version of ONNX's operators; the one that runs fastest, if None."""
    held_out: bool = True
    """Whether logits are compared on the held-out data too, where there is a task."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)

    def check(self, chosen: Sequence[tuple[ExportRuntime, str]]) -> None:
        """Check what the chosen precisions need, before any work.

        Raises:
            MissingResource: a precision or `max_kl` needs data, and there is no task.
            InvalidData: the task's data cannot be used.
        """
        if self.task is not None:
            _ = self.task.splits  # bad data are refused before anything is loaded
            return
        for runtime, precision in chosen:
            if precision in runtime.calibrated:
                raise MissingResource(
                    f"{runtime.name()} needs calibration data for {precision}, but got none; give --task or "
                    "--train-file"
                )
        if self.max_kl is not None:
            raise MissingResource("max_kl needs held-out training data, but got none; give --task or --train-file")


class _Source(NamedTuple):
    """What every runtime's files are made from and compared with."""

    model: nn.Module
    """In eval mode, on the CPU."""
    input_names: list[str]
    onnx: Path
    """The model in fp32."""
    calibration: Sequence[Batch]
    """Inputs that ranges are taken from; empty without a task."""
    held_out: Batches | None
    """Training data that no method saw; None without a task."""
    answers: Answers | None
    """The model's own, to the held-out data."""


def load_unsaved(
    model: nn.Module,
    runtime: Runtime,
    *,
    precision: str = FP32,
    batches: Sequence[Batch],
    threads: int | None = None,
) -> nn.Module:
    """Return a model as it runs in a runtime, without saving the model; temporary files are deleted before the return.

    Args:
        model: in eval mode; on the CPU for a runtime that it is exported for.
        runtime: any.
        precision: one that the runtime knows.
        batches: a few inputs of the model; their names are read, and ranges where the precision needs calibration.
        threads: of the runtime; as many as torch uses, if None.

    Raises:
        InvalidModel: ONNX cannot express the model.
    """
    threads = threads or torch.get_num_threads()
    with temporary_folder() as folder:
        if not isinstance(runtime, ExportRuntime):
            return runtime.load(model, folder, precision=precision, threads=threads)
        onnx = folder / "whole.onnx"
        to_onnx(model, input_names(model, list(batches[0])), onnx)
        conversion = Conversion(onnx, precision, batches, dense_layers_in_blocks(model) or None)
        return ExportedModel(model, _converted(runtime, conversion, folder, threads))


def _converted(runtime: ExportRuntime, conversion: Conversion, folder: Path, threads: int) -> Session:
    """Write a runtime's files and open them."""
    runtime.convert(conversion, folder)
    return runtime.open(folder, precision=conversion.precision, threads=threads)


class MadeExport(NamedTuple):
    """What one runtime runs, made and compared, but nowhere to stay yet."""

    runtime: str
    """Name of the runtime."""
    precision: str
    """As the runtime names it."""
    files: list[Path]
    """Everything that a session reads, in a folder of its own inside the draft."""
    agreement: Agreement
    """How near its logits are to the model's."""
    needs: Mapping[str, Any]
    """What it needs to run; see `ExportRuntime.needs`."""

    @property
    def about(self) -> dict[str, Any]:
        """What a manifest says of it, besides its files."""
        return {**self.agreement._asdict(), **self.needs}


def export_to(
    folder: Path,
    chosen: Sequence[tuple[ExportRuntime, str]],
    *,
    settings: ExportSettings,
    failed: Callable[[str, str, Exception], None],
) -> dict[tuple[str, str], Agreement]:
    """Export an artifact for each of these runtimes and precisions; the files lie beside its weights.

    If one of them fails, `failed` is called with the name of the runtime, the precision and the error. If `failed`
    returns, the export goes on with the next.

    Raises:
        WhetError: what can be checked before the work is wrong.
    """
    settings.check(chosen)
    require_folder(folder, what="the model", error=InvalidModel)
    agreements = {}
    with adding_to(folder), _draft(folder) as draft:
        for one in made_exports(folder, chosen, draft, settings=settings, failed=failed):
            artifact.add_export(folder, one.runtime, one.precision, one.files, one.about)
            agreements[one.runtime, one.precision] = one.agreement
    return agreements


def made_exports(
    model: str | Path,
    chosen: Sequence[tuple[ExportRuntime, str]],
    draft: Path,
    *,
    settings: ExportSettings,
    failed: Callable[[str, str, Exception], None],
) -> Iterator[MadeExport]:
    """Yield an export for each of these runtimes and precisions, once it gives the model's own answers.

    Args:
        model: folder or hub name of any model that whet loads.
        chosen: runtimes, each with a precision that it knows.
        draft: an empty folder for all files; the caller moves those that stay.
        settings: how, after their check.
        failed: see `export_to`.
    """
    threads = settings.threads or torch.get_num_threads()
    source = _source(model, draft / "whole.onnx", settings)
    for runtime, precision in track(chosen, "converting"):
        place = draft / runtime.name() / precision
        place.mkdir(parents=True)
        try:
            agreement = _verified(runtime, precision, source, place, settings.max_kl, threads)
        except OSError:
            raise
        except Exception as error:
            failed(runtime.name(), precision, error)
            continue
        set_rights(draft)
        yield MadeExport(runtime.name(), precision, sorted(place.iterdir()), agreement, runtime.needs(place, precision))


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside of the model's, which the caller holds.

    Raises:
        OutputNotWritten: the folder cannot be written.
    """
    draft = folder / EXPORT_DRAFT
    try:
        draft.mkdir()
        yield draft
    except OSError as error:
        raise error if isinstance(error, WhetError) else not_written(folder, error) from error
    finally:
        remove(draft)


def _source(model: str | Path, onnx: Path, settings: ExportSettings) -> _Source:
    """Load the model, write it as ONNX, and compute its logits of the held-out data."""
    loaded, tokenizer = artifact.load_with_tokenizer(model, kind=settings.kind)
    equalize_low_rank_layers(loaded, dense_layers_in_blocks(loaded))  # changes no logits, and int8 loses less
    names, task = input_names(loaded, tokenizer.model_input_names), settings.task
    if task is not None:
        check_head(loaded, task)
    to_onnx(loaded, names, onnx, opset=settings.opset)
    if task is None:
        return _Source(loaded, names, onnx, (), None, None)
    needs = frozenset({"calibration", "validation"} if settings.held_out else {"calibration"})
    resources = prepare_resources(
        loaded, tokenizer, task, settings.calibration, seed=settings.seed, device="cpu", needs=needs
    )
    held_out = resources.validation
    calibration = [model_inputs(batch, loaded) for batch in require_calibration(resources)]
    answers = None if held_out is None else predict(loaded, held_out)
    return _Source(loaded, names, onnx, calibration, held_out, answers)


def _verified(
    runtime: ExportRuntime, precision: str, source: _Source, place: Path, max_kl: MaxKl | None, threads: int
) -> Agreement:
    """Write one runtime's files, with as few layers in fp32 as `max_kl` allows."""
    layers, held_out = dense_layers_in_blocks(source.model), source.held_out

    def converted(in_precision: tuple[str, ...]) -> Agreement:
        conversion = Conversion(source.onnx, precision, source.calibration, in_precision if layers else None)
        return _agreement(runtime, source, _converted(runtime, conversion, place, threads), precision)

    if precision == FP32 or max_kl is None or held_out is None:
        return converted(layers)
    agreements: list[Agreement] = []

    def kl(in_precision: tuple[str, ...]) -> float:
        agreements.append(converted(in_precision))
        return math.inf if agreements[-1].kl is None else agreements[-1].kl

    in_fp32 = choose_fp32_layers(layers, kl, lambda: quantization_sensitivity(source.model, layers, held_out), max_kl)
    return agreements[-1]._replace(in_fp32=in_fp32)


def _agreement(runtime: ExportRuntime, source: _Source, session: Session, precision: str) -> Agreement:
    """Compare the logits of a session with the model's own."""
    tolerance = TOLERANCE if precision == FP32 else math.inf
    agreement = agreement_with(source.model, session, source.input_names, runtime=runtime.name(), tolerance=tolerance)
    if source.held_out is None or source.answers is None:
        return agreement
    found = predict(ExportedModel(source.model, session), source.held_out)
    return agreement._replace(kl=float(source.answers.divergences(found).mean()))
