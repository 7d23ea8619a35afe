"""A runtime: where an exported model runs, beside PyTorch itself.

A runtime writes files beside the weights and reads them again, in one of the precisions that it knows. What it gives in
fp32 must be what PyTorch gives: `compare` runs both at several shapes, and an export that is further off than the
tolerance is refused. In fewer bits answers differ; how much is measured on the task's own text.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from whet.errors import InvalidModel, InvalidParameter
from whet.models.inference import example_batch, predict_logits
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.precision import FP32

__all__ = [
    "TOLERANCE",
    "Agreement",
    "Conversion",
    "Deployed",
    "Predict",
    "Runtime",
    "all_runtimes",
    "compare",
    "exporter_named",
    "offered",
    "runtime_named",
]

PACKAGE = "whet.runtimes"
"""Where our own runtimes lie, and the group of entry points by which installed packages add theirs."""
TOLERANCE = 1e-4
"""Largest difference of logits that an export in fp32 may show; of logits above 1, as a share of the largest."""
SHAPES = ((1, 3), (2, 7), (3, 16), (5, 11), (8, 24))
"""Examples and tokens at which an export is compared; the last tokens of some examples are padding."""


class Agreement(NamedTuple):
    """How near a runtime's answers are to PyTorch's."""

    shapes: tuple[tuple[int, int], ...]
    """Examples and tokens."""
    largest_difference: float
    """Of logits."""
    equal_predictions: float
    """Share of the examples."""
    precision: str
    """That the runtime really computed in."""
    kl: float | None = None
    """Of the model's answers and the runtime's on held-out text, in nats; None, if there is none."""
    in_fp32: tuple[str, ...] = ()
    """Layers that stay in fp32, since in int8 they cost too much."""


class Conversion(NamedTuple):
    """What a runtime makes its files from."""

    onnx: Path
    """The model in fp32."""
    precision: str = FP32
    """One of the runtime's own."""
    batches: Sequence[Mapping[str, Tensor]] = ()
    """Calibration inputs, where the precision needs them."""
    layers: tuple[str, ...] | None = None
    """Modules whose products are in int8; all that can be, if None."""


class Predict(ABC):
    """An exported model, ready to run."""

    precision: str
    """The precision that it computes in, such as fp32."""

    def __call__(self, batch: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
        """Return the logits of a batch, (examples, classes).

        Raises:
            InvalidParameter: it holds nothing; runtimes fail at that somewhere inside, each in its own way.
        """
        if empty := [name for name, values in batch.items() if values.numel() == 0]:
            raise InvalidParameter(f"a batch must hold a token at least, but got {', '.join(empty)} without any")
        return self.run({name: values.numpy() for name, values in batch.items()})

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return the logits, (examples, classes), of these inputs and perhaps others that it does not read."""


class Runtime(ABC):
    """One runtime."""

    extra: ClassVar[str]
    """The extra of the package that installs it."""
    package: ClassVar[str]
    """What is imported."""
    precisions: ClassVar[Mapping[str, tuple[str, ...]]]
    """The files of each precision that it knows, beside the weights."""
    calibrated: ClassVar[frozenset[str]] = frozenset()
    """The precisions that need calibration inputs."""
    converters: ClassVar[Mapping[str, str]] = {}
    """The precisions that another package makes, which is imported too, and that package."""

    @classmethod
    def name(cls) -> str:
        """Return the runtime's name; see `member_name`."""
        return member_name(cls, PACKAGE)

    @abstractmethod
    def convert(self, what: Conversion, folder: Path) -> None:
        """Write the precision's files into the folder."""

    @abstractmethod
    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Predict:
        """Return what `convert` wrote, ready to run on so many threads."""

    def require(self, precision: str = FP32) -> None:
        """Refuse to go on without what a precision needs.

        Raises:
            InvalidParameter: a package is not installed, and the message names the extra; or this machine cannot
                compute in that precision.
        """
        for package in (self.package, *([self.converters[precision]] if precision in self.converters else [])):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise InvalidParameter(
                    f"{self.name()} needs the package {package}, but it is not installed; "
                    f"pip install 'whet[{self.extra}]'"
                ) from error


class Deployed(nn.Module):
    """A model whose answers come from another runtime; its weights are there to be counted."""

    def __init__(self, model: nn.Module, predict: Predict) -> None:
        super().__init__()
        self.model = model
        self.predict = predict
        self.config = model.config

    def forward(self, **batch: Tensor) -> SequenceClassifierOutput:
        """Return the logits."""
        return SequenceClassifierOutput(logits=torch.from_numpy(self.predict(batch)))


def all_runtimes() -> dict[str, type[Runtime]]:
    """Return every runtime by name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    return by_name(members(PACKAGE, Runtime, group=PACKAGE), lambda runtime: (runtime.name(),))


def offered(runtime: Runtime, precisions: Sequence[str]) -> list[str]:
    """Return which of these precisions a runtime knows, in its own order.

    Raises:
        InvalidParameter: none of them, or one cannot be had here.
    """
    found = [own for own in runtime.precisions if own in precisions]
    if not found:
        raise InvalidParameter(
            f"{runtime.name()} must know the precision, but got {', '.join(precisions)}; it knows "
            f"{', '.join(runtime.precisions)}"
        )
    for precision in found:
        runtime.require(precision)
    return found


def runtime_named(name: str) -> Runtime:
    """Return the runtime of that name.

    Raises:
        UnknownName: there is none; the message gives the nearest.
        InvalidParameter: its package is not installed.
    """
    found: Runtime = all_runtimes()[choose(name, all_runtimes(), what="the runtime")]()
    found.require()
    return found


def exporter_named(name: str) -> Runtime:
    """Return the runtime of that name, or of the format that it reads, such as onnx, which its extra is called by.

    Raises:
        UnknownName, InvalidParameter: see `runtime_named`.
    """
    by_extra = {runtime.extra: own for own, runtime in all_runtimes().items()}
    return runtime_named(by_extra.get(name, name))


def compare(
    model: nn.Module, predict: Predict, names: Sequence[str], *, runtime: str, tolerance: float = TOLERANCE
) -> Agreement:
    """Return how near a runtime's answers are to PyTorch's, at shapes that the export did not see.

    Args:
        model: what was exported, in eval mode, on the CPU.
        predict: what came of it.
        names: of its inputs.
        runtime: for the message.
        tolerance: largest difference of logits, relative where they are above 1.

    Raises:
        InvalidModel: they differ by more than the tolerance, or are not finite, or the runtime fails at a shape.
    """
    largest, equal = 0.0, 0
    for shape in SHAPES:
        batch, at = example_batch(model, names, *shape), f"{shape[0]} x {shape[1]}"
        wanted = predict_logits(model, [batch])
        try:
            found = predict(batch)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidModel(
                f"{runtime} must run the model at every batch size and length, but it fails at {at}: {reason}; "
                "use another runtime"
            ) from error
        difference, scale = float(np.abs(found - wanted).max()), max(1.0, float(np.abs(wanted).max()))
        if not difference <= tolerance * scale:
            raise InvalidModel(
                f"{runtime} must give the model's own answers to {tolerance:g}, but at {at} they differ by "
                f"{difference:.2g}; nothing was written"
            )
        largest = max(largest, difference)
        equal += int((found.argmax(-1) == wanted.argmax(-1)).sum())
    return Agreement(SHAPES, largest, equal / sum(size for size, _ in SHAPES), predict.precision)
