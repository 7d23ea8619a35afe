"""Exporting from Python."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from whet.calibration.resources import Calibration
from whet.errors import InvalidArtifact, InvalidParameter
from whet.evaluation import records
from whet.models import artifact
from whet.models.checkpoint import Checkpoint
from whet.models.manifest import read_manifest
from whet.models.recognition import recognized
from whet.runtimes.base import Agreement, ExportRuntime, exporter_named
from whet.runtimes.export import CALIBRATION, ExportSettings, export_to
from whet.tasks.base import Task
from whet.utils.calls import checked
from whet.utils.files import remove
from whet.utils.manifests import is_artifact
from whet.utils.outputs import claimed, new_folder
from whet.utils.precision import FP32
from whet.utils.progress import note
from whet.utils.ranges import Dimensions, MaxKl, Opset, Seed, Threads

__all__ = ["export"]

_COPY = ".copy"
"""Where the copy is made inside its draft, under its own name, which its card shows."""


@checked
def export(
    model: str | Path,
    runtimes: Sequence[str],
    *,
    precisions: Sequence[str] = (FP32,),
    task: Task | None = None,
    calibration: Calibration | None = None,
    kind: str | None = None,
    dimensions: Dimensions | None = None,
    seed: Seed = 0,
    max_kl: MaxKl | None = None,
    threads: Threads | None = None,
    opset: Opset | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> dict[tuple[str, str], Agreement]:
    """Export a model for runtimes, and return how near their logits are to PyTorch's.

    The files lie beside the model's weights, or with a copy of the model in `out`.

    Args:
        model: folder of a model that whet wrote; with `out`, any folder or hub name.
        runtimes: names, such as onnxruntime, or the formats that they read, such as onnx.
        precisions: such as int8; each runtime takes those that it knows.
        task: gives calibration data and held-out training data; int8 with calibration, and `max_kl`, need it.
        calibration: the sample that ranges are taken from.
        kind: of the model's answers, such as embedding, where neither the folder nor the task tells.
        dimensions: leading dimensions that vectors of an embedder keep, in `out`; all if None.
        seed: of the sample.
        max_kl: largest mean KL on the held-out data, in nats. The layers that harm most stay in fp32 until it is met.
        threads: of the comparison; as many as torch uses, if None.
        opset: version of ONNX's operators, for older versions of a runtime; the one that runs fastest, if None.
        out: folder to write, with the model, its tokenizer and these exports; it appears whole or not at all.
        overwrite: whether `out` may be replaced.

    Returns:
        An agreement for every runtime and precision.

    Raises:
        WhetError: the model, a name, a package or the data cannot be used, which is found before any work; or a
            runtime cannot run the model or gives other logits, and then nothing of it is written.
    """
    exporters = {exporter.name(): exporter for exporter in map(exporter_named, runtimes)}
    chosen = [(one, precision) for one in exporters.values() for precision in one.supported(precisions)]
    texts = None
    if task is not None:
        kind, read = recognized(model, task, kind, labels="unread")
        texts = read.unlabeled()
    settings = ExportSettings(
        task=texts,
        kind=kind,
        calibration=calibration or CALIBRATION,
        seed=seed,
        max_kl=max_kl,
        threads=threads,
        opset=opset,
    )
    settings.check(chosen)
    if out is not None:
        inputs = [Path(model), *(() if task is None else task.files)]
        with (
            claimed(Path(out), overwrite=overwrite, inputs=inputs),
            _copy(model, Path(out), kind, dimensions, overwrite) as copy,
        ):
            return _exported(copy, chosen, settings)
    if dimensions is not None:
        raise InvalidParameter(
            f"dimensions must go with out, as the model beside an export gives the same vectors, but got "
            f"dimensions={dimensions} alone; give out=FOLDER"
        )
    if not is_artifact(model):
        Checkpoint.of(model).refuse_encoder_decoder()  # a name that nothing has is told to be one
        raise InvalidArtifact(
            f"without out, the folder must be one that whet wrote, but got {model}; give out=FOLDER, which gets a copy "
            "of the model with its export"
        )
    return _exported(Path(model), chosen, settings)


def _exported(
    folder: Path, chosen: Sequence[tuple[ExportRuntime, str]], settings: ExportSettings
) -> dict[tuple[str, str], Agreement]:
    agreements = export_to(folder, chosen, settings=settings, failed=_refuse)
    if missing := Checkpoint.of(folder).kind(settings.kind).not_in_exports:
        note(missing)
    records.renew_card(folder)
    return agreements


@contextmanager
def _copy(model: str | Path, out: Path, kind: str | None, dimensions: int | None, overwrite: bool) -> Iterator[Path]:
    """Yield an artifact of the model, in a folder of that name, which becomes `out` at the end of the block.

    What was measured of a model does not hold for one whose vectors have fewer dimensions.
    """
    with new_folder(out, overwrite=overwrite) as draft:
        copy = draft / _COPY / out.resolve().name
        if is_artifact(model) and dimensions is None:
            artifact.verify(Path(model))
            no_target = {"target": None}  # of the search that the original won
            records.copy_model(Path(model), copy, export=None, about=no_target, trials=records.trials(Path(model)))
        else:
            loaded, tokenizer = artifact.load_with_tokenizer(model, kind=kind, dimensions=dimensions)
            steps = records.read_steps(Path(model)) if is_artifact(model) else []
            sample = read_manifest(Path(model)).calibration if is_artifact(model) else None
            records.save_model(loaded, tokenizer, copy, recipe=steps, origin=str(model), seed=0, calibration=sample)
        yield copy
        for path in copy.iterdir():
            path.rename(draft / path.name)
        remove(draft / _COPY)


def _refuse(runtime: str, precision: str, error: Exception) -> None:
    raise error
