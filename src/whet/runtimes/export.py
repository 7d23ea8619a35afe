"""From a model to what other runtimes run, in four steps: write ONNX, convert it, open the result, compare logits.

`export` takes the model from a folder and leaves the files there, once their logits are the model's own.
`load_unsaved` leaves no files and compares nothing; it serves models that are only timed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from whet.calibration.resources import Calibration, prepare_resources, require_calibration
from whet.calibration.sensitivity import choose_fp32_layers, equalize_low_rank_layers, quantization_sensitivity
from whet.errors import InvalidArtifact, InvalidModel, InvalidParameter, MissingResource, WhetError
from whet.models import artifact
from whet.models.architecture import dense_layers_in_blocks
from whet.models.inference import input_names, predict_logits
from whet.models.load import check_head
from whet.runtimes._onnx import check_opset, to_onnx
from whet.runtimes.base import (
    TOLERANCE,
    Agreement,
    Conversion,
    ExportedModel,
    ExportRuntime,
    Runtime,
    Session,
    compare,
    exporter_named,
)
from whet.tasks.base import Task
from whet.tasks.data import Batch, Batches
from whet.tasks.kinds.base import kl_divergences
from whet.utils.calls import checked
from whet.utils.files import not_written, remove
from whet.utils.inputs import require_folder
from whet.utils.locks import EXPORT_DRAFT
from whet.utils.outputs import adding_to, set_rights
from whet.utils.precision import FP32
from whet.utils.progress import track
from whet.utils.ranges import MaxKl, Seed, Threads
from whet.utils.scratch import temporary_folder

__all__ = ["CALIBRATION", "export", "export_to", "load_unsaved"]

CALIBRATION = Calibration(examples=300, batch_size=8)
"""The sample that ranges are taken from, if no other is given."""


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
    logits: np.ndarray[Any, Any] | None
    """The model's own logits of the held-out data."""


@checked
def export(
    model: str | Path,
    runtimes: Sequence[str],
    *,
    precisions: Sequence[str] = (FP32,),
    task: Task | None = None,
    calibration: Calibration | None = None,
    seed: Seed = 0,
    max_kl: MaxKl | None = None,
    threads: Threads | None = None,
    opset: int | None = None,
) -> dict[tuple[str, str], Agreement]:
    """Export a model for runtimes, and return how near their logits are to PyTorch's.

    The files lie beside the model's weights.

    Args:
        model: folder of a model that whet wrote.
        runtimes: names, such as onnxruntime, or the formats that they read, such as onnx.
        precisions: such as int8; each runtime takes those that it knows.
        task: gives calibration data and held-out training data; int8 with calibration, and `max_kl`, need it.
        calibration: the sample that ranges are taken from.
        seed: of the sample.
        max_kl: largest mean KL on the held-out data, in nats. The layers that harm most stay in fp32 until it is met.
        threads: of the comparison; as many as torch uses, if None.
        opset: version of ONNX's operators, for older versions of a runtime; the one that runs fastest, if None.

    Returns:
        An agreement for every runtime and precision.

    Raises:
        WhetError: the folder, a name, a package or the data cannot be used, which is found before any work; or a
            runtime cannot run the model or gives other logits, and then nothing of it is written.
    """
    exporters = {exporter.name(): exporter for exporter in map(exporter_named, runtimes)}
    chosen = [(one, precision) for one in exporters.values() for precision in one.supported(precisions)]
    return export_to(
        Path(model),
        chosen,
        task=task,
        calibration=calibration,
        seed=seed,
        max_kl=max_kl,
        threads=threads,
        opset=opset,
        failed=_refuse,
    )


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


def _refuse(runtime: str, precision: str, error: Exception) -> None:
    raise error


def export_to(
    folder: Path,
    chosen: Sequence[tuple[ExportRuntime, str]],
    *,
    task: Task | None,
    calibration: Calibration | None = None,
    seed: int = 0,
    max_kl: float | None = None,
    threads: int | None = None,
    opset: int | None = None,
    failed: Callable[[str, str, Exception], None],
) -> dict[tuple[str, str], Agreement]:
    """Export a model for each of these runtimes and precisions; see `export`.

    If one of them fails, `failed` is called with the name of the runtime, the precision and the error. If `failed`
    returns, the export goes on with the next.
    """
    task = None if task is None else task.unlabeled()  # labels are not read
    _check(chosen, task, max_kl)
    check_opset(opset)
    require_folder(folder, what="the model", error=InvalidModel)
    if not artifact.is_artifact(folder):
        raise InvalidArtifact(
            f"the folder must be one that whet wrote, but got {folder}; fine-tune, distil or compress the model first"
        )
    threads = threads or torch.get_num_threads()
    agreements = {}
    with adding_to(folder), _draft(folder) as draft:
        source = _source(folder, draft / "whole.onnx", task, calibration or CALIBRATION, seed, opset)
        for runtime, precision in track(chosen, "converting"):
            place = draft / runtime.name() / precision
            place.mkdir(parents=True)
            try:
                agreement = _verified(runtime, precision, source, place, max_kl, threads)
            except OSError:
                raise
            except Exception as error:
                failed(runtime.name(), precision, error)
                continue
            set_rights(draft)
            about = {**agreement._asdict(), **runtime.needs(place, precision)}
            artifact.add_export(folder, runtime.name(), precision, sorted(place.iterdir()), about)
            agreements[runtime.name(), precision] = agreement
    return agreements


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


def _source(
    folder: Path, onnx: Path, task: Task | None, calibration: Calibration, seed: int, opset: int | None
) -> _Source:
    """Load the model, write it as ONNX, and compute its logits of the held-out data."""
    model, tokenizer = artifact.load_with_tokenizer(folder)
    equalize_low_rank_layers(model, dense_layers_in_blocks(model))  # changes no logits, and int8 loses less
    names = input_names(model, tokenizer.model_input_names)
    to_onnx(model, names, onnx, opset=opset)
    if task is None:
        return _Source(model, names, onnx, (), None, None)
    check_head(model, task)
    needs = frozenset({"calibration", "validation"})
    resources = prepare_resources(model, tokenizer, task, calibration, seed=seed, device="cpu", needs=needs)
    held_out = resources.validation
    assert held_out is not None
    return _Source(
        model, names, onnx, require_calibration(resources).batches, held_out, predict_logits(model, held_out)
    )


def _check(chosen: Sequence[tuple[ExportRuntime, str]], task: Task | None, max_kl: float | None) -> None:
    if max_kl is not None and not 0 < max_kl < math.inf:
        raise InvalidParameter(f"0 < max_kl must hold, but got max_kl={max_kl}; give nats, such as 0.01")
    if task is not None:
        _ = task.splits  # bad data are refused before anything is loaded
        return
    for runtime, precision in chosen:
        if precision in runtime.calibrated:
            raise MissingResource(f"{runtime.name()} needs calibration data for {precision}, but got none; give --task")
    if max_kl is not None:
        raise MissingResource("max_kl needs held-out training data, but got none; give --task")


def _verified(
    runtime: ExportRuntime, precision: str, source: _Source, place: Path, max_kl: float | None, threads: int
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
    agreement = compare(source.model, session, source.input_names, runtime=runtime.name(), tolerance=tolerance)
    if source.held_out is None or source.logits is None:
        return agreement
    logits = predict_logits(ExportedModel(source.model, session), source.held_out)
    return agreement._replace(kl=float(np.mean(kl_divergences(source.logits, logits))))
