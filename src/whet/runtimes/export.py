"""From a model to files that other runtimes run, in four steps: ONNX, conversion, opening, comparison.

`export` does this for an artifact, and writes the files beside its weights once their logits are the model's own.
`load_unsaved` does it for a model that only runs for a while, such as a candidate that is timed, and leaves out the
comparison.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from whet.calibration.resources import Calibration, Resources, prepare_resources
from whet.calibration.sensitivity import choose_fp32_layers, equalize_low_rank_layers, quantization_sensitivity
from whet.errors import InvalidArtifact, InvalidParameter, MissingResource, OutputNotWritten
from whet.models import artifact
from whet.models.architecture import dense_layers_in_blocks
from whet.models.inference import input_names, predict_logits
from whet.models.load import class_order, load_tokenizer
from whet.runtimes._onnx import to_onnx
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
from whet.tasks.kinds.base import kl_divergences
from whet.utils.precision import FP32
from whet.utils.progress import track

__all__ = ["export", "export_to", "load_unsaved"]

CALIBRATION = 300
"""Training examples that ranges are taken from."""


class _Source(NamedTuple):
    """What is exported."""

    model: nn.Module
    names: list[str]
    """Of its inputs."""
    onnx: Path
    """The model in fp32."""
    resources: Resources
    wanted: np.ndarray[Any, Any] | None
    """The model's own logits of the held-out data."""
    threads: int


def export(
    model: str | Path,
    runtimes: Sequence[str],
    *,
    precisions: Sequence[str] = (FP32,),
    task: Task | None = None,
    calibration: Calibration | None = None,
    seed: int = 0,
    max_kl: float | None = None,
    threads: int | None = None,
) -> dict[tuple[str, str], Agreement]:
    """Write what these runtimes run into the folder of a model, and return how near their answers are to PyTorch's.

    Args:
        model: folder of a model that whet wrote.
        runtimes: names, such as onnxruntime, or what they read, such as onnx.
        precisions: such as int8; each runtime takes those that it knows.
        task: gives calibration data and held-out training data, for fewer bits than 32.
        calibration: how much of it.
        seed: of the sample.
        max_kl: largest mean KL on the held-out data, in nats; layers that cost most stay in fp32 until it is met.
        threads: that the comparison runs on; as many as torch's, if None.

    Returns:
        An agreement for every runtime and precision.

    Raises:
        WhetError: anything wrong with the folder, a name, a package or the data, before any work; or a runtime that
            cannot take the model or gives other answers, for which nothing is written.
    """
    chosen = [(one, precision) for one in map(exporter_named, runtimes) for precision in one.supported(precisions)]
    return export_to(
        Path(model),
        chosen,
        task=task,
        calibration=calibration,
        seed=seed,
        max_kl=max_kl,
        threads=threads,
        failed=_refuse,
    )


def load_unsaved(
    model: nn.Module,
    runtime: Runtime,
    *,
    precision: str = FP32,
    batches: Sequence[Mapping[str, Tensor]],
    threads: int | None = None,
) -> nn.Module:
    """Return a model as it runs in a runtime, without saving it; what the runtime reads is deleted once it is open.

    Args:
        model: in eval mode, on the CPU where it is exported.
        runtime: any.
        precision: one of the runtime's own.
        batches: inputs of the model; a few are enough, from which ranges are taken where the precision wants some.
        threads: that the runtime uses; as many as torch's, if None.

    Raises:
        InvalidModel: the model has no form in ONNX.
    """
    threads = threads or torch.get_num_threads()
    with TemporaryDirectory() as name:
        folder = Path(name)
        if not isinstance(runtime, ExportRuntime):
            return runtime.load(model, folder, precision=precision, threads=threads)
        onnx = folder / "whole.onnx"
        to_onnx(model, input_names(model, list(batches[0])), onnx)
        conversion = Conversion(onnx, precision, batches, dense_layers_in_blocks(model) or None)
        return ExportedModel(model, _converted(runtime, conversion, folder, threads))


def _converted(runtime: ExportRuntime, conversion: Conversion, folder: Path, threads: int) -> Session:
    """Write the runtime's files from ONNX, and open them."""
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
    failed: Callable[[str, str, Exception], None],
) -> dict[tuple[str, str], Agreement]:
    """Write what each of these runtimes runs in its precision, as `export` does.

    Where one cannot take the model, `failed` is called with both names and the error; if it returns, the others go on.
    """
    _check(chosen, task, max_kl)
    if not artifact.is_artifact(folder):
        raise InvalidArtifact(
            f"the folder must be one that whet wrote, but got {folder}; fine-tune, distil or compress the model first"
        )
    model, tokenizer = artifact.load(folder).eval(), load_tokenizer(folder)
    equalize_low_rank_layers(
        model, dense_layers_in_blocks(model)
    )  # which changes no answer, and makes 8 bits lose less
    names = input_names(model, tokenizer.model_input_names)
    resources = Resources()
    if task is not None:
        class_order(model, task)
        needs = frozenset({"calibration", "validation"})
        sample = calibration or Calibration(examples=CALIBRATION, batch_size=8)
        resources = prepare_resources(model, tokenizer, task, sample, seed=seed, device="cpu", needs=needs)
    found = {}
    draft = folder / ".export.partial"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        wanted = None if resources.validation is None else predict_logits(model, resources.validation)
        source = _Source(model, names, draft / "whole.onnx", resources, wanted, threads or torch.get_num_threads())
        to_onnx(model, names, source.onnx)
        for runtime, precision in track(chosen, "converting"):
            place = draft / runtime.name() / precision
            place.mkdir(parents=True)
            try:
                agreement = _verified(runtime, precision, source, place, max_kl)
            except OSError:
                raise
            except Exception as error:
                failed(runtime.name(), precision, error)
                continue
            files = [place / name for name in runtime.precisions[precision]]
            artifact.add_export(folder, runtime.name(), precision, files, agreement._asdict())
            found[runtime.name(), precision] = agreement
    except OSError as error:
        raise OutputNotWritten(f"{folder} must be writable, but {error}; free some space or name another") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return found


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


def _verified(runtime: ExportRuntime, precision: str, source: _Source, place: Path, max_kl: float | None) -> Agreement:
    """Write one runtime's files, with as many layers in fp32 as the loss allowed asks for."""
    layers = dense_layers_in_blocks(source.model)
    calibration = source.resources.calibration
    batches = () if calibration is None else calibration.batches

    def agreement(chosen: tuple[str, ...]) -> Agreement:
        conversion = Conversion(source.onnx, precision, batches, chosen if layers else None)
        return _agreement(runtime, conversion, source, place)

    held_out = source.resources.validation
    if precision == FP32 or max_kl is None or held_out is None:
        return agreement(layers)
    found: list[Agreement] = []

    def loss(chosen: tuple[str, ...]) -> float:
        found.append(agreement(chosen))
        return math.inf if found[-1].kl is None else found[-1].kl

    kept = choose_fp32_layers(layers, loss, lambda: quantization_sensitivity(source.model, layers, held_out), max_kl)
    return found[-1]._replace(in_fp32=kept)


def _agreement(runtime: ExportRuntime, conversion: Conversion, source: _Source, place: Path) -> Agreement:
    """Write the runtime's files, and compare what they give with the model's own logits."""
    session = _converted(runtime, conversion, place, source.threads)
    tolerance = TOLERANCE if conversion.precision == FP32 else math.inf
    found = compare(source.model, session, source.names, runtime=runtime.name(), tolerance=tolerance)
    held_out = source.resources.validation
    if held_out is None or source.wanted is None:
        return found
    logits = predict_logits(ExportedModel(source.model, session), held_out)
    return found._replace(kl=float(np.mean(kl_divergences(source.wanted, logits))))
