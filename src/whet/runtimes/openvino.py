"""OpenVINO on the CPU; it reads `openvino_model.xml` and `.bin` beside the weights, which is Optimum's layout.

On processors with bf16, OpenVINO computes in bf16 by default; here the precision is always set, and read back from the
compiled model. In int8, NNCF rounds the weights and inputs of matrix products, with ranges from calibration data, and
corrects the biases; word embeddings are stored in 8 bits with one scale per word.
"""

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidParameter
from whet.runtimes._onnx import external_files, nodes_of, quantize_embeddings, save_graph
from whet.runtimes.base import Conversion, ExportRuntime, Session
from whet.utils.precision import BF16, FP32, INT8

__all__ = ["OpenVino"]

FLOAT_FILES = ("openvino_model.xml", "openvino_model.bin")
INT8_FILES = ("openvino_model_int8.xml", "openvino_model_int8.bin")
PRECISION_HINTS = {FP32: "f32", BF16: "bf16", INT8: "f32"}
"""OpenVINO's name of the floating-point precision, for each of our precisions."""
PRECISION_NAMES = {"f32": FP32, "bf16": BF16, "f16": "fp16"}
"""Our name for each of OpenVINO's floating-point precisions."""


class OpenVino(ExportRuntime):
    """The runtime `openvino`."""

    extra: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {FP32: FLOAT_FILES, BF16: FLOAT_FILES, INT8: INT8_FILES}
    calibrated: ClassVar[frozenset[str]] = frozenset({INT8})
    converters: ClassVar[Mapping[str, str]] = {INT8: "nncf"}

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """See `Runtime.require`."""
        super().require(precision, device=device)
        import openvino

        if precision == BF16 and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InvalidParameter(
                "the processor must have bf16 instructions, but this one has none, and would be slower; leave bf16 out"
            )

    def convert(self, conversion: Conversion, folder: Path) -> None:
        """See `ExportRuntime.convert`."""
        import openvino

        model = _quantized(conversion) if conversion.precision == INT8 else _read(conversion.onnx)
        path = folder / self.precisions[conversion.precision][0]
        openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """See `ExportRuntime.open`."""
        return _OpenVinoSession(folder / self.precisions[precision][0], precision, threads)


def _read(path: Path) -> Any:
    import openvino

    if external_files(path):
        return openvino.Core().read_model(path)
    return openvino.convert_model(io.BytesIO(path.read_bytes()))  # openvino would split a path at a comma


def _quantized(conversion: Conversion) -> Any:
    import nncf
    import onnx

    graph = onnx.load(conversion.onnx)
    quantize_embeddings(graph)
    small = conversion.onnx.with_name("quantized_embeddings.onnx")
    save_graph(graph, small)
    model = _read(small)
    names = [value.get_any_name() for value in model.inputs]
    data = nncf.Dataset(conversion.batches, lambda batch: {name: batch[name].numpy() for name in names})
    ignored: list[str] = []
    if conversion.layers is not None:
        chosen = set(nodes_of(graph, conversion.layers))
        # openvino splits a Gemm into operations whose names add a slash and a suffix
        ignored = [name for name in map(_name, model.get_ops()) if name.partition("/")[0] not in chosen]
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # nncf prints progress bars
        return nncf.quantize(
            model,
            data,
            subset_size=len(conversion.batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def _name(operation: Any) -> str:
    name: str = operation.get_friendly_name()
    return name


class _OpenVinoSession(Session):
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._model = openvino.Core().compile_model(path, "CPU", options)
        self._names = [value.get_any_name() for value in self._model.inputs]
        self.precision = self._used()

    def _used(self) -> str:
        """Return the precision in which the compiled model computes the products of linear layers."""
        products = [
            node.get_rt_info()["runtimePrecision"].astype(str)
            for node in self._model.get_runtime_model().get_ops()
            if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
        ]
        if any(precision in ("i8", "u8") for precision in products):
            return INT8
        used: str = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return PRECISION_NAMES.get(used, used)

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """See `Session.run`."""
        logits: np.ndarray[Any, Any] = self._model({name: inputs[name] for name in self._names})[0]
        return np.array(logits)
