"""Export an artifact for other runtimes: written beside the weights once it gives the model's own answers."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from whet import artifact
from whet.checkpoint import load_tokenizer
from whet.errors import InvalidArtifact, OutputNotWritten
from whet.onnx_export import to_onnx
from whet.progress import track
from whet.runtime import Agreement, compare, example_batch, input_names, runtime_named

__all__ = ["export"]


def export(
    folder: Path,
    runtimes: Sequence[str],
    *,
    threads: int | None = None,
) -> dict[str, Agreement]:
    """Write what these runtimes run into the folder of a model, and return how near their answers are to PyTorch's.

    Args:
        folder: a model that whet wrote.
        runtimes: names, such as onnxruntime.
        threads: that the comparison runs on; as many as torch's, if None.

    Raises:
        WhetError: anything wrong with the folder, a name or a package, before any work; or a runtime that cannot take
            the model or gives other answers, for which nothing is written.
    """
    chosen = [runtime_named(name) for name in runtimes]
    if not artifact.is_artifact(folder):
        raise InvalidArtifact(
            f"the folder must be one that whet wrote, but got {folder}; fine-tune, distil or compress the model first"
        )
    model, tokenizer = artifact.load(folder).eval(), load_tokenizer(folder)
    names = input_names(model, tokenizer.model_input_names)
    found = {}
    draft = folder / ".export.partial"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        to_onnx(model, example_batch(model, names, 2, 6), draft / "whole.onnx")
        for runtime in track(chosen, "converting"):
            place = draft / runtime.name()
            place.mkdir()
            runtime.convert(draft / "whole.onnx", place)
            predict = runtime.open(place, threads=threads or torch.get_num_threads())
            agreement = compare(model, predict, names, runtime=runtime.name())
            del predict  # it may hold its files open
            files = [place / name for name in runtime.files]
            artifact.add_export(folder, runtime.name(), files, agreement._asdict())
            found[runtime.name()] = agreement
    except OSError as error:
        raise OutputNotWritten(f"{folder} must be writable, but {error}; free some space or name another") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return found
