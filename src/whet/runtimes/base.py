"""A runtime: where a model runs.

PyTorch runs the model itself. An `ExportRuntime` runs files that are made from the model, in one of the precisions that
the runtime knows. In fp32 its logits must be those of PyTorch: `agreement_with` runs both at several shapes and refuses
an export that differs by more than the tolerance. In fewer bits logits differ; by how much is measured
on the task's text.

A new runtime is one module beside this one, or a class of an installed package with an entry point in the group
`whet.runtimes`. No other module needs to change.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from whet.errors import InvalidArtifact, InvalidModel, InvalidParameter, WhetError
from whet.models import artifact
from whet.models.inference import example_batch, kind_of_model, predict
from whet.run.sessions import Session
from whet.utils.commands import export_command
from whet.utils.inputs import one_line
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.precision import FP32, PYTORCH

if TYPE_CHECKING:
    from transformers.utils import ModelOutput

__all__ = [
    "TOLERANCE",
    "Agreement",
    "Conversion",
    "ExportRuntime",
    "ExportedModel",
    "Runtime",
    "agreement_with",
    "all_runtimes",
    "export_runtimes",
    "exporter_named",
    "require_known_precisions",
    "runtime_named",
    "search_runtimes",
]

PACKAGE = "whet.runtimes"
"""Our own runtimes, and the group of entry points for those of installed packages."""
TOLERANCE = 1e-4
"""Largest difference between logits that an export in fp32 may show; above 1 it is relative to the largest logit."""
SHAPES = ((1, 3), (2, 7), (3, 16), (5, 11), (8, 24))
"""Batch sizes and lengths at which an export is compared; the last tokens of some examples are padding."""


class Agreement(NamedTuple):
    """How near a runtime's logits are to PyTorch's."""

    shapes: tuple[tuple[int, int], ...]
    """Batch sizes and lengths of the random inputs that were compared."""
    largest_difference: float
    """Between logits of the random inputs."""
    equal_predictions: float | None
    """Fraction of the rows for random inputs that decide the same; None for a kind that decides nothing."""
    precision: str
    """The precision that the runtime computed in."""
    kl: float | None = None
    """Mean KL from the model to the runtime on held-out text, in nats; None without held-out text."""
    in_fp32: tuple[str, ...] = ()
    """Layers that stay in fp32 to keep the KL within its limit."""


class Conversion(NamedTuple):
    """What a runtime converts, and how."""

    onnx: Path
    """The model in fp32."""
    precision: str = FP32
    """One that the runtime knows."""
    batches: Sequence[Mapping[str, Tensor]] = ()
    """Calibration inputs, for precisions that need them."""
    layers: tuple[str, ...] | None = None
    """Modules whose matrix products are in int8; all that can be, if None."""


class ExportedModel(nn.Module):
    """A model whose outputs come from a session; its own weights serve to count parameters."""

    def __init__(self, model: nn.Module, session: Session) -> None:
        super().__init__()
        self.model = model
        self.session = session
        self.config = model.config
        self.kind = kind_of_model(model)

    def forward(self, **batch: Tensor) -> "ModelOutput":
        """Return the outputs of the session."""
        from transformers.utils import ModelOutput  # slow to import

        return ModelOutput({name: torch.from_numpy(values) for name, values in self.session(batch).items()})


class Runtime(ABC):
    """One runtime."""

    package: ClassVar[str]
    """The package that must be importable."""
    extra: ClassVar[str] = ""
    """The extra of whet that installs the package; empty if whet always needs it."""
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {FP32: ()}
    """The precisions that it knows, each with the names of its files."""
    for_search: ClassVar[bool] = True
    """Whether searches, and methods that time candidates, may use it; False where loading a model takes long."""

    @classmethod
    def name(cls) -> str:
        """Return the runtime's name; see `member_name`."""
        return member_name(cls, PACKAGE)

    @abstractmethod
    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> nn.Module:
        """Return a model as this runtime runs it.

        Args:
            model: the model in PyTorch, in eval mode.
            folder: where the model was saved and exported.
            precision: one that the runtime knows.
            threads: number of threads, for a runtime with threads of its own.
        """

    def files(self, folder: Path, precision: str = FP32) -> list[Path]:
        """Return the files of an export; none for a runtime that runs the model itself.

        Raises:
            InvalidArtifact: the folder holds no export for this runtime and precision, or one of other weights.
        """
        return []

    def supported(self, precisions: Sequence[str], *, device: str = "cpu") -> list[str]:
        """Return the precisions among these in which models can run on this machine.

        A runtime that runs the model itself ignores `precisions`: it computes in what the model is stored in.

        Raises:
            UnknownName: no runtime knows one of them.
            InvalidParameter: the runtime knows none of them, or `require` refuses one.
        """
        require_known_precisions(precisions)
        self.require(device=device)
        return list(self.precisions)

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """Check that models can run in a precision on a device, which torch names.

        Raises:
            InvalidParameter: a package is not installed, the machine cannot compute in the precision, or the runtime
                does not support the device.
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
    """A runtime that runs files which are made from the model."""

    reads: ClassVar[str] = ""
    """Format by which people may name the runtime, such as onnx; empty if by its own name only."""
    calibrated: ClassVar[frozenset[str]] = frozenset()
    """The precisions that need calibration inputs."""
    converters: ClassVar[Mapping[str, str]] = {}
    """For precisions that need a further package to convert: the package."""

    @abstractmethod
    def convert(self, conversion: Conversion, folder: Path) -> None:
        """Write the files of the conversion's precision into the folder, which keeps nothing else."""

    @abstractmethod
    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """Return a session on the files that `convert` wrote."""

    def needs(self, folder: Path, precision: str) -> dict[str, Any]:
        """Return what the files of `convert` need to run, for the manifest; nothing worth telling, if empty."""
        return {}

    def reads_besides(self, folder: Path, precision: str) -> set[str]:
        """Return the names, as an export gives them, of files that a session reads besides those of `precisions`."""
        return set()

    def all_read(self, folder: Path, precision: str) -> set[str]:
        """Return the names, as an export gives them, of all files that a session reads."""
        return {*self.precisions[precision], *self.reads_besides(folder, precision)}

    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> ExportedModel:
        """See `Runtime.load`.

        Raises:
            InvalidArtifact: the runtime cannot open the export.
        """
        try:
            session = self.open(folder, precision=precision, threads=threads)
        except WhetError:
            raise
        except Exception as error:
            raise InvalidArtifact(
                f"{self.name()} must be able to open its export, but for {folder} it says: {one_line(error, 200)}; "
                + export_command(folder, self.name(), precision)
            ) from error
        return ExportedModel(model, session)

    def files(self, folder: Path, precision: str = FP32) -> list[Path]:
        """See `Runtime.files`; the digest of every file that a session reads is checked."""
        checked = artifact.exported(folder, self.name(), precision).files
        if strangers := sorted(self.all_read(folder, precision) - checked.keys()):
            raise InvalidArtifact(
                f"an export must read only files of its own, but the one for {self.name()} in {folder} reads "
                f"{strangers[0]!r}, which the manifest does not list; "
                f"{export_command(folder, self.name(), precision)}"
            )
        return [folder / name for name in checked]

    def supported(self, precisions: Sequence[str], *, device: str = "cpu") -> list[str]:
        """See `Runtime.supported`; the order is the runtime's own."""
        require_known_precisions(precisions)
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
    """Return the runtime of that name, whether or not it can run here; see `Runtime.require`.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known = all_runtimes()
    return known[choose(name, known, what="the runtime")]()


def require_known_precisions(precisions: Sequence[str]) -> None:
    """Refuse the name of a precision that no runtime knows."""
    known = {name for runtime in all_runtimes().values() for name in runtime.precisions}
    for precision in precisions:
        choose(precision, known, what="the precision")


def search_runtimes() -> list[str]:
    """Return the names of the runtimes that searches and timing methods may use, PyTorch first."""
    names = [name for name, runtime in all_runtimes().items() if runtime.for_search]
    return sorted(names, key=lambda name: name != PYTORCH)


def export_runtimes() -> dict[str, type[ExportRuntime]]:
    """Return the runtimes that models are exported for, by name."""
    return {name: runtime for name, runtime in all_runtimes().items() if issubclass(runtime, ExportRuntime)}


def exporter_named(name: str) -> ExportRuntime:
    """Return the runtime with that name, or that is meant by a format, such as onnx for onnxruntime.

    Raises:
        UnknownName: models cannot be exported for any such runtime; the message gives the nearest names.
    """
    known = export_runtimes()
    by_format = {runtime.reads: own for own, runtime in known.items() if runtime.reads}
    return known[choose(by_format.get(name, name), known, what="the runtime")]()


def agreement_with(
    model: nn.Module, session: Session, names: Sequence[str], *, runtime: str, tolerance: float = TOLERANCE
) -> Agreement:
    """Return how near the logits of an export are to PyTorch's, at shapes other than the exporter's example.

    Args:
        model: the exported model, in eval mode, on the CPU.
        session: its export.
        names: of the model's inputs.
        runtime: name of the runtime, for messages.
        tolerance: largest difference between logits; above 1 it is relative to the largest logit.

    Raises:
        InvalidModel: logits differ by more than the tolerance or are not finite, or the runtime fails at a shape.
    """
    largest, different = 0.0, []
    for shape in SHAPES:
        batch, at = example_batch(model, names, *shape), f"{shape[0]} x {shape[1]}"
        wanted = predict(model, [batch])
        try:
            found = predict(ExportedModel(model, session), [batch])
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidModel(
                f"{runtime} must run the model at every batch size and length, but it fails at {at}: {reason}; "
                "use another runtime"
            ) from error
        real = wanted.logits > np.finfo(wanted.logits.dtype).min  # outputs that a kind masks have the least number
        difference = float(np.abs(found.logits - wanted.logits).max())
        scale = max(1.0, float(np.abs(wanted.logits[real]).max()))
        if not difference <= tolerance * scale:
            raise InvalidModel(
                f"{runtime} must give the model's own answers to {tolerance:g}, but at {at} they differ by "
                f"{difference:.2g}; nothing was written"
            )
        largest = max(largest, difference)
        different.append(wanted.disagreements(found))
    decided = [part for part in different if part is not None]
    equal = 1 - float(np.concatenate(decided).mean()) if decided else None
    return Agreement(SHAPES, largest, equal, session.precision)
