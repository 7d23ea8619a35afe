"""A runtime: where a model runs.

PyTorch runs the model itself. An `ExportRuntime` runs files that are made from it, in one of the precisions that the
runtime knows. What such files give in fp32 must be what PyTorch gives: `compare` runs both at several shapes, and an
export that is further off than the tolerance is refused. In fewer bits logits differ; by how much is measured on the
task's own text.

A new runtime is one module beside this one, or a class that an installed package names as an entry point of the group
`whet.runtimes`; nothing else has to know of it.
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
from whet.models import artifact
from whet.models.inference import example_batch, predict_logits
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.precision import FP32, PYTORCH

__all__ = [
    "TOLERANCE",
    "Agreement",
    "Conversion",
    "ExportRuntime",
    "ExportedModel",
    "Runtime",
    "Session",
    "all_runtimes",
    "compare",
    "export_runtimes",
    "exporter_named",
    "runtime_named",
    "search_runtimes",
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


class Session(ABC):
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


class ExportedModel(nn.Module):
    """A model whose logits come from a session; its weights are there to be counted."""

    def __init__(self, model: nn.Module, session: Session) -> None:
        super().__init__()
        self.model = model
        self.session = session
        self.config = model.config

    def forward(self, **batch: Tensor) -> SequenceClassifierOutput:
        """Return the logits."""
        return SequenceClassifierOutput(logits=torch.from_numpy(self.session(batch)))


class Runtime(ABC):
    """One runtime."""

    package: ClassVar[str]
    """What is imported."""
    extra: ClassVar[str] = ""
    """The extra of whet that installs it; empty if it always is."""
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {FP32: ()}
    """The precisions that it knows, each with the files that it reads beside the weights."""
    for_search: ClassVar[bool] = True
    """Whether a search, and methods that time their candidates, may bring many models to it."""

    @classmethod
    def name(cls) -> str:
        """Return the runtime's name; see `member_name`."""
        return member_name(cls, PACKAGE)

    @abstractmethod
    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> nn.Module:
        """Return a model as it runs here.

        Args:
            model: in PyTorch, in eval mode.
            folder: that it was saved to, and exported to where the runtime needs it.
            precision: one of the runtime's own.
            threads: of a runtime with threads of its own.
        """

    def files(self, folder: Path, precision: str = FP32) -> list[Path]:
        """Return what the runtime reads instead of the model's weights; nothing if it reads those.

        Raises:
            InvalidArtifact: the folder holds no export for this runtime, or one of other weights.
        """
        return []

    def supported(self, precisions: Sequence[str], *, device: str = "cpu") -> list[str]:
        """Return in which of these precisions models run here; what runs the model itself has that of the model alone.

        Raises:
            InvalidParameter: in none of them, or something that one needs is missing.
        """
        self.require(device=device)
        return list(self.precisions)

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """Refuse to go on without what a precision needs.

        Raises:
            InvalidParameter: a package is not installed, and the message names the extra; or this machine cannot
                compute in that precision; or the runtime does not run on the device, which is named as by torch.
        """
        self._require_package(self.package)

    def _require_package(self, package: str) -> None:
        try:
            importlib.import_module(package)
        except ImportError as error:
            remedy = f"pip install 'whet[{self.extra}]'" if self.extra else f"pip install {package}"
            raise InvalidParameter(
                f"{self.name()} needs the package {package}, but it is not installed; {remedy}"
            ) from error


class ExportRuntime(Runtime):
    """A runtime that runs files made from the model."""

    calibrated: ClassVar[frozenset[str]] = frozenset()
    """The precisions that need calibration inputs."""
    converters: ClassVar[Mapping[str, str]] = {}
    """The precisions that another package makes, which is imported too, and that package."""

    @abstractmethod
    def convert(self, conversion: Conversion, folder: Path) -> None:
        """Write the precision's files into the folder."""

    @abstractmethod
    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """Return what `convert` wrote, ready to run on so many threads."""

    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> ExportedModel:
        """See `Runtime.load`."""
        return ExportedModel(model, self.open(folder, precision=precision, threads=threads))

    def files(self, folder: Path, precision: str = FP32) -> list[Path]:
        """See `Runtime.files`."""
        return [folder / name for name in artifact.exported(folder, self.name(), precision)["files"]]

    def supported(self, precisions: Sequence[str], *, device: str = "cpu") -> list[str]:
        """Return which of these precisions the runtime knows, in its own order. See `Runtime.supported`."""
        known = [own for own in self.precisions if own in precisions]
        if not known:
            raise InvalidParameter(
                f"{self.name()} must know the precision, but got {', '.join(precisions)}; it knows "
                f"{', '.join(self.precisions)}"
            )
        for precision in known:
            self.require(precision, device=device)
        return known

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """See `Runtime.require`."""
        if device != "cpu":
            raise InvalidParameter(f"{self.name()} must run on the cpu, but got device={device}; leave it out")
        super().require(precision, device=device)
        if precision in self.converters:
            self._require_package(self.converters[precision])


def all_runtimes() -> dict[str, type[Runtime]]:
    """Return every runtime by name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    return by_name(members(PACKAGE, Runtime, group=PACKAGE), lambda runtime: (runtime.name(),))


def runtime_named(name: str) -> Runtime:
    """Return the runtime of that name; what it needs may be missing, see `Runtime.require`.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known = all_runtimes()
    return known[choose(name, known, what="the runtime")]()


def search_runtimes() -> list[str]:
    """Return the names of the runtimes that many models may be brought to, PyTorch first."""
    names = [name for name, runtime in all_runtimes().items() if runtime.for_search]
    return sorted(names, key=lambda name: name != PYTORCH)


def export_runtimes() -> dict[str, type[ExportRuntime]]:
    """Return the runtimes that models are exported for, by name."""
    return {name: runtime for name, runtime in all_runtimes().items() if issubclass(runtime, ExportRuntime)}


def exporter_named(name: str) -> ExportRuntime:
    """Return the runtime of that name, or of the format that it reads, such as onnx, which its extra is called by.

    Raises:
        UnknownName: there is none that models are exported for; the message gives the nearest.
    """
    known = export_runtimes()
    by_extra = {runtime.extra: own for own, runtime in reversed(known.items()) if runtime.extra}
    return known[choose(by_extra.get(name, name), known, what="the runtime")]()


def compare(
    model: nn.Module, session: Session, names: Sequence[str], *, runtime: str, tolerance: float = TOLERANCE
) -> Agreement:
    """Return how near a runtime's answers are to PyTorch's, at shapes that the export did not see.

    Args:
        model: what was exported, in eval mode, on the CPU.
        session: the export, opened.
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
            found = session(batch)
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
    return Agreement(SHAPES, largest, equal / sum(size for size, _ in SHAPES), session.precision)
