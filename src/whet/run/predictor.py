"""One predictor for every form of a model: text in, labels and scores out.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from whet.errors import InvalidArtifact, InvalidModel, InvalidParameter
from whet.run.folder import ModelFolder
from whet.run.sessions import ONNX_FILES, OPENVINO_FILES, OnnxSession, OpenVinoSession, Session, require_bf16
from whet.run.target import ONNX_RUNTIME, OPENVINO, choose_target, missing_packages, target_name
from whet.run.text import Encoder, Text, TokenEncoder, padded_batch
from whet.utils.calls import checked
from whet.utils.inputs import exists, one_line, require_folder
from whet.utils.lengths import longest_input
from whet.utils.precision import BF16, FP32, PYTORCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Prediction", "Predictor", "load", "usable_cores"]

Array = np.ndarray[Any, Any]

WINDOW = 256
"""Batches that are tokenized at once and sorted by length, so that millions of texts need little memory."""
_FIRST_FILES = {precision: names[0] for precision, names in OPENVINO_FILES.items()}
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much of the processors a container may use."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text."""

    label: str
    """The likeliest class; of a regressor, the name of its output."""
    score: float
    """Probability of that class; of a regressor, the score itself."""
    scores: Mapping[str, float]
    """All classes with their probabilities; of a regressor, its one score."""


@dataclass(frozen=True)
class _About:
    """What a predictor knows besides its parts."""

    source: str
    max_length: int | None
    batch_size: int


class Predictor:
    """A model, ready to answer; safe to call from several threads."""

    def __init__(
        self, session: Session, encoder: Encoder, labels: Sequence[str], *, target: str, about: _About
    ) -> None:
        self.target = target
        """Runtime and precision, such as `onnxruntime int8`."""
        self.labels = tuple(labels)
        """The names of the classes, in the order of `scores`."""
        self.max_length = about.max_length
        """Longest input in tokens; what is longer is cut. None if nothing limits it."""
        self._session, self._encoder, self._about = session, encoder, about

    def __repr__(self) -> str:
        length = "" if self.max_length is None else f", max_length={self.max_length}"
        return f"Predictor({self._about.source}: {self.target}, labels={list(self.labels)}{length})"

    @property
    def model(self) -> "PreTrainedModel":
        """The model itself, if it runs in PyTorch.

        Raises:
            InvalidParameter: it runs elsewhere.
        """
        model: PreTrainedModel | None = getattr(self._session, "model", None)
        if model is None:
            raise InvalidParameter(
                f"only a predictor in pytorch has the model itself, but this one runs in {self.target}; give "
                "runtime='pytorch', or call whet.load_model"
            )
        return model

    @overload
    def __call__(self, texts: Text) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is iterable
    @overload
    def __call__(self, texts: Iterable[Text]) -> list[Prediction]: ...
    def __call__(self, texts: Text | Iterable[Text]) -> Prediction | list[Prediction]:
        """Return the prediction of one text, or a list of those of several.

        Args:
            texts: a text, a pair of texts as a tuple, or an iterable of either.
        """
        predictions = self.predict(texts)
        return predictions[0] if isinstance(texts, str | tuple) else predictions

    def predict(self, texts: Text | Iterable[Text]) -> list[Prediction]:
        """Return a prediction for each text, in order; see `__call__`."""
        predictions = []
        for row in self.scores(texts):
            best = int(row.argmax())
            scores = dict(zip(self.labels, row.tolist(), strict=True))
            predictions.append(Prediction(self.labels[best], float(row[best]), scores))
        return predictions

    def scores(self, texts: Text | Iterable[Text]) -> Array:
        """Return (texts, classes) probabilities, or the (texts, 1) scores of a regressor."""
        logits = self.logits(texts).astype(np.float64)
        if len(self.labels) == 1:
            return logits
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = odds / odds.sum(axis=1, keepdims=True)
        return probabilities

    def logits(self, texts: Text | Iterable[Text]) -> Array:
        """Return the model's (texts, outputs) float32 logits.

        Raises:
            InvalidParameter: something is neither a text nor a pair of texts.
        """
        asked = _checked_texts(texts)
        logits = np.empty((len(asked), len(self.labels)), np.float32)
        size = self._about.batch_size
        for first in range(0, len(asked), size * WINDOW):
            rows = self._encoder.rows(asked[first : first + size * WINDOW])
            order = np.argsort([len(row.input_ids) for row in rows], kind="stable")
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                inputs = padded_batch([rows[i] for i in batch], self._encoder.padding)
                logits[first + batch] = self._session(inputs)["logits"]
        return logits


@checked
def load(
    folder: str | Path,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
) -> Predictor:
    """Return a predictor for a model: text in, labels and scores out.

    A deployment (`whet export --deploy`) and the exports of a model need no torch: `pip install 'whet[run]'`. A folder
    that whet did not write, or a hub name, runs in PyTorch.

    Args:
        folder: of a model, of the best model of a search, or of a deployment.
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
        return _in_pytorch(str(folder), max_length, threads, batch_size)
    files = ModelFolder(path)
    target = choose_target(files, runtime, precision)
    wanted = max_length or files.measured_length(target)
    if target[0] == PYTORCH:
        return _in_pytorch(str(folder), wanted, threads, batch_size)
    lengths = [length for length in (wanted, longest_input(files.config)) if length]
    about = _About(str(folder), min(lengths, default=None), batch_size)
    encoder = TokenEncoder(files, about.max_length)
    session = _opened(files, target, threads or usable_cores())
    return Predictor(session, encoder, files.labels, target=target_name(target), about=about)


def _in_pytorch(source: str, max_length: int | None, threads: int | None, batch_size: int) -> Predictor:
    from whet.run._pytorch import TorchSession

    session = TorchSession(source, max_length, threads)
    config = session.model.config
    labels = [str(config.id2label[i]) for i in sorted(config.id2label)]
    about = _About(source, session.max_length, batch_size)
    return Predictor(session, session, labels, target=PYTORCH, about=about)


def _opened(files: ModelFolder, target: tuple[str, str], threads: int) -> Session:
    runtime, precision = target
    paths = files.export_files(runtime, precision)
    name = (ONNX_FILES if runtime == ONNX_RUNTIME else _FIRST_FILES).get(precision)
    if name not in [path.name for path in paths]:
        raise InvalidArtifact(
            f"an export for {runtime} {precision} must have a file {name}, but the manifest of {files.path} lists "
            f"none; whet export {files.path} --to {runtime} --precision {precision}"
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


def _checked_texts(texts: Text | Iterable[Text]) -> list[Text]:
    listed: list[Any] = [texts] if isinstance(texts, str | tuple) else list(texts)
    for i, text in enumerate(listed):
        parts = text if isinstance(text, tuple) and len(text) == 2 else (text,)
        if not all(isinstance(part, str) and _is_encodable(part) for part in parts):
            advice = "give several texts as a list" if isinstance(text, tuple) else "correct it"
            raise InvalidParameter(
                f"texts must be texts, or pairs of them as tuples, but got texts[{i}]={one_line(repr(text), 60)}; "
                f"{advice}"
            )
    return listed


def _is_encodable(text: str) -> bool:
    """Return whether a text can be written as UTF-8, which half a character cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
