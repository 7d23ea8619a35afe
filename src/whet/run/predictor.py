"""One predictor for every form of a model: texts in, answers out, as the kind of the model has them.

::

    predictor = whet.load("runs/search/best")
    predictor("a film to remember")        # Prediction(label='positive', score=0.98, scores={...})
    predictor(["one", "two"])              # a list
    predictor(("a premise", "a claim"))    # one pair

Texts are tokenized, cut and padded as `whet measure` does it, in batches of similar length. In fp32 the answers are
those of the model in PyTorch to about 1e-4. Int8 takes the range of its inputs from the whole batch, so that the answer
to a text depends a little on the texts beside it; with `batch_size=1` it does not.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from whet.errors import InvalidArtifact, InvalidModel, InvalidParameter
from whet.run.folder import ModelFolder
from whet.run.kinds.base import About, Predictor, predictor_named
from whet.run.sessions import ONNX_FILES, OPENVINO_FILES, OnnxSession, OpenVinoSession, Session, require_bf16
from whet.run.target import ONNX_RUNTIME, OPENVINO, Target, choose_target, missing_packages, target_name
from whet.run.text import TOKENIZER, Encoder, TokenEncoder
from whet.utils.calls import checked
from whet.utils.commands import export_command
from whet.utils.inputs import exists, one_line, require_folder
from whet.utils.precision import BF16, FP32, PYTORCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["in_texts", "load", "usable_cores"]

_FIRST_FILES = {precision: names[0] for precision, names in OPENVINO_FILES.items()}
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much of the processors a container may use."""


@checked
def load(
    folder: str | Path,
    *,
    kind: str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
) -> Predictor:
    """Return a predictor for a model: texts in, answers out, as the kind of the model has them.

    A deployment (`whet export --deploy`) and the exports of a model need no torch: `pip install 'whet[run]'`. A folder
    that whet did not write, or a hub name, runs in PyTorch.

    Args:
        folder: of a model, of the best model of a search, or of a deployment.
        kind: of its answers, such as reranking, where a folder that whet did not write does not tell.
        runtime: onnxruntime, openvino or pytorch. If None: what the folder was made for, as a search's best is; else
            the fastest for single texts that was measured and is installed here; else fp32 in the first of
            onnxruntime, openvino, pytorch.
        precision: such as int8; chosen in the same way.
        threads: of the runtime; as many as this process may use, if None. PyTorch has one number for everything.
        max_length: longest input in tokens; if None, what the model was measured with, and else the longest that it
            can read. What is longer is cut.
        batch_size: texts that run together. Int8 takes the range of its inputs from the whole batch, so that answers
            depend a little on the other texts of a batch; with 1 they do not.

    Raises:
        InvalidParameter: a value is out of range, there is no such form of the model, or a package is missing.
        InvalidArtifact: a file is missing or altered.
        InvalidModel: the model cannot be loaded.
    """
    for name, value, least in (("threads", threads, 1), ("max_length", max_length, 2), ("batch_size", batch_size, 1)):
        if value is not None and value < least:
            raise InvalidParameter(f"{least} <= {name} must hold, but got {name}={one_line(value, 40)}; give more")
    path = Path(folder)
    if not exists(path):  # the name of a model on the hub, which PyTorch alone can run
        if runtime not in (None, PYTORCH) or precision not in (None, FP32) or missing_packages(PYTORCH):
            require_folder(path, what="the model", error=InvalidModel)
        return _in_pytorch(str(folder), kind, max_length, threads, batch_size)
    files = ModelFolder(path)
    answering = predictor_named(files.kind) if files.is_own else None
    if answering is not None and not answering.runs_exports:
        runtime = _required_pytorch(files, runtime)
    target = choose_target(files, runtime, precision)
    wanted = max_length or files.measured_length(target)
    if target[0] == PYTORCH:
        said = kind or (files.kind if files.is_own else None)
        return _in_pytorch(str(folder), said, wanted, threads, batch_size)
    if kind not in (None, files.kind):
        raise InvalidModel(
            f"the kind must be that of the model, but got {one_line(kind, 40)} for {path}, whose kind is {files.kind}; "
            "leave it out"
        )
    assert answering is not None, "a folder of others has no exports"
    about = About(
        source=str(folder),
        target=target_name(target),
        labels=files.labels,
        max_length=min((length for length in (wanted, files.longest_input) if length), default=None),
        batch_size=batch_size,
        config=files.config,
        sentences=files.sentences,
    )
    encoder = TokenEncoder(files, about.max_length, in_windows=answering.in_windows)
    return answering(_opened(files, target, threads or usable_cores()), encoder, about)


def in_texts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    source: str,
    max_length: int,
    batch_size: int,
    target: Target = (PYTORCH, FP32),
    exported: Session | None = None,
) -> Predictor:
    """Return a predictor for a model in memory, which answers as that of `load` does.

    Args:
        model: in PyTorch.
        tokenizer: of the model.
        source: its folder or hub name; a tokenizer.json there is used as `load` does it where the model is exported.
        max_length: longest input in tokens; what is longer is cut.
        batch_size: inputs that run together.
        target: runtime and precision.
        exported: the model's export, opened; the model itself runs if None.

    Raises:
        UnknownName: there is no predictor for models of the kind.
    """
    from whet.run._pytorch import TorchSession

    whole = TorchSession(model, tokenizer, max_length)
    answering, about = predictor_named(whole.kind), whole.about(source, batch_size)
    if exported is None:
        return answering(whole, whole, replace(about, target=target_name(target)))
    files = ModelFolder(Path(source)) if exists(Path(source)) else None
    encoder: Encoder = whole
    if files is not None and files.lists(TOKENIZER):
        encoder = TokenEncoder(files, about.max_length, in_windows=answering.in_windows)
    return answering(exported, encoder, replace(about, target=target_name(target)))


def _required_pytorch(files: ModelFolder, runtime: str | None) -> str:
    """Return PyTorch, where alone models of the folder's kind run."""
    if runtime not in (None, PYTORCH):
        raise InvalidParameter(
            f"a model for {files.kind.replace('_', ' ')} must run in pytorch, but got "
            f"runtime={one_line(runtime, 40)!r} for {files.path}; leave it out"
        )
    return PYTORCH


def _in_pytorch(
    source: str, kind: str | None, max_length: int | None, threads: int | None, batch_size: int
) -> Predictor:
    from whet.run._pytorch import TorchSession

    session = TorchSession.opened(source, kind, max_length, threads)
    return predictor_named(session.kind)(session, session, session.about(source, batch_size))


def _opened(files: ModelFolder, target: tuple[str, str], threads: int) -> Session:
    runtime, precision = target
    paths = files.export_files(runtime, precision)
    name = (ONNX_FILES if runtime == ONNX_RUNTIME else _FIRST_FILES).get(precision)
    if name not in [path.name for path in paths]:
        raise InvalidArtifact(
            f"an export for {runtime} {precision} must have a file {name}, but the manifest of {files.path} lists "
            f"none; {export_command(files.path, runtime, precision)}"
        )
    if target == (OPENVINO, BF16):
        require_bf16()
    try:
        return (OnnxSession if runtime == ONNX_RUNTIME else OpenVinoSession)(files.path / name, precision, threads)
    except Exception as error:  # each runtime has its own
        raise InvalidArtifact(
            f"{runtime} must be able to open the model, but for {files.path / name} it says: {one_line(error, 200)}; "
            f"export the model again, or install the version that its manifest names"
        ) from error


def usable_cores() -> int:
    """Return how many processors this process may use: OMP_NUM_THREADS, or what the system and the container allow."""
    if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # there is none
        return cores
