"""OpenVINO on the CPU, from `openvino_model.xml` and `.bin` beside the weights: Optimum's layout.

On processors with bf16, OpenVINO computes in it unless told otherwise; here it is told, and asked what it does. In
int8, NNCF rounds weights and inputs of products, with ranges from calibration data, and mends the biases; word
embeddings are stored in 8 bits with a scale for each word.
"""

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidParameter
from whet.runtimes._onnx import nodes_below, round_tables
from whet.runtimes.base import Conversion, ExportRuntime, Session
from whet.utils.precision import BF16, FP32, INT8

__all__ = ["OpenVino"]

WHOLE = ("openvino_model.xml", "openvino_model.bin")
QUANTIZED = ("openvino_model_int8.xml", "openvino_model_int8.bin")
HINTS = {FP32: "f32", BF16: "bf16", INT8: "f32"}
NAMES = {"f32": FP32, "bf16": BF16, "f16": "fp16"}


class OpenVino(ExportRuntime):
    """Runs models by openvino."""

    extra: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {FP32: WHOLE, BF16: WHOLE, INT8: QUANTIZED}
    calibrated: ClassVar[frozenset[str]] = frozenset({INT8})
    converters: ClassVar[Mapping[str, str]] = {INT8: "nncf"}

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """See `Runtime.require`."""
        super().require(precision, device=device)
        import openvino

        if precision == BF16 and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InvalidParameter(
                "the processor must compute in bf16, but this one cannot, and would be slower; leave bf16 out"
            )

    def convert(self, conversion: Conversion, folder: Path) -> None:
        """See `ExportRuntime.convert`."""
        import openvino

        model = _quantized(conversion) if conversion.precision == INT8 else _read(conversion.onnx.read_bytes())
        place = folder / self.precisions[conversion.precision][0]
        openvino.save_model(model, place, compress_to_fp16=False)

    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """See `ExportRuntime.open`."""
        return _Compiled(folder / self.precisions[precision][0], precision, threads)


def _read(graph: bytes) -> Any:
    import openvino

    return openvino.convert_model(io.BytesIO(graph))  # (a path with a comma would be taken for two)


def _quantized(conversion: Conversion) -> Any:
    import nncf
    import onnx

    graph = onnx.load(conversion.onnx)
    round_tables(graph)
    model = _read(graph.SerializeToString())
    names = [one.get_any_name() for one in model.inputs]
    data = nncf.Dataset(conversion.batches, lambda batch: {name: batch[name].numpy() for name in names})
    ignored: list[str] = []
    if conversion.layers is not None:
        chosen = set(nodes_below(graph, conversion.layers))
        # what it makes of a Gemm has a name that goes on behind a slash
        ignored = [name for name in map(_name, model.get_ops()) if name.partition("/")[0] not in chosen]
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars of its own
        return nncf.quantize(
            model,
            data,
            subset_size=len(conversion.batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def _name(operation: Any) -> str:
    found: str = operation.get_friendly_name()
    return found


class _Compiled(Session):
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import openvino

        wanted = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._model = openvino.Core().compile_model(path, "CPU", wanted)
        self._names = [one.get_any_name() for one in self._model.inputs]
        self.precision = self._used()

    def _used(self) -> str:
        """What products of linear layers are computed in."""
        products = [
            node.get_rt_info()["runtimePrecision"].astype(str)
            for node in self._model.get_runtime_model().get_ops()
            if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
        ]
        if any(one in ("i8", "u8") for one in products):
            return INT8
        used: str = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return NAMES.get(used, used)

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """See `Session.run`."""
        found: np.ndarray[Any, Any] = self._model({name: inputs[name] for name in self._names})[0]
        return np.array(found)
