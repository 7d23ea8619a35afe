"""Sessions: exported models, opened in their runtimes, from token ids to what the model answers.

Every session may be called from several threads at once. On processors with bf16, OpenVINO computes in bf16 by default;
here the precision is always set, and read back from the compiled model.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from whet.errors import InvalidParameter
from whet.utils.precision import BF16, FP32, INT8, STATIC_INT8

__all__ = [
    "ONNX_FILES",
    "OPENVINO_FILES",
    "SLOW_FUSIONS",
    "OnnxSession",
    "OpenVinoSession",
    "Session",
    "require_bf16",
]

Array = np.ndarray[Any, Any]

ONNX_FILES = {FP32: "model.onnx", INT8: "model_quantized.onnx", STATIC_INT8: "model_static_quantized.onnx"}
"""The file that ONNX Runtime reads, for each precision."""
_OPENVINO_FLOAT = ("openvino_model.xml", "openvino_model.bin")
OPENVINO_FILES = {
    FP32: _OPENVINO_FLOAT,
    BF16: _OPENVINO_FLOAT,
    INT8: ("openvino_model_int8.xml", "openvino_model_int8.bin"),
}
"""The files that OpenVINO reads, for each precision; the first is the one to open."""
SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""Fusions that make models slower: the fused operator takes five times as long as the two it replaces (1.31,
AVX-512)."""
_FOR_OTHERS = "last_hidden_state"
"""The output of sentence embedders that sentence-transformers reads, and pools by itself."""
_PRECISION_HINTS = {FP32: "f32", BF16: "bf16", INT8: "f32"}
"""OpenVINO's name of the floating-point precision, for each of our precisions."""
_PRECISION_NAMES = {"f32": FP32, "bf16": BF16, "f16": "fp16"}
"""Our name for each of OpenVINO's floating-point precisions."""


class Session(ABC):
    """An exported model, ready to run."""

    precision: str
    """The precision that it computes in, such as fp32."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the outputs for a batch by name; a classifier has logits alone, (examples, classes).

        Args:
            batch: token ids and what belongs to them, each (examples, tokens) int64, as tensors or arrays.

        Raises:
            InvalidParameter: the batch is empty.
        """
        inputs = {name: np.asarray(values) for name, values in batch.items()}
        if empty := [name for name, values in inputs.items() if values.size == 0]:
            raise InvalidParameter(f"a batch must hold a token at least, but got {', '.join(empty)} without any")
        return self.run(inputs)

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name; see `TaskKind.outputs` for the names.

        Args:
            inputs: by name; the model may read only some of them.
        """


class OnnxSession(Session):
    """A model in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.precision = precision
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW_FUSIONS)
        )
        self._names = [value.name for value in self._session.get_inputs()]
        self._outputs = _read([value.name for value in self._session.get_outputs()])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Session.run`."""
        arrays = self._session.run(self._outputs, {name: inputs[name] for name in self._names})
        return dict(zip(self._outputs, arrays, strict=True))


class OpenVinoSession(Session):
    """A model in OpenVINO, on the CPU."""

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._model = openvino.Core().compile_model(path, "CPU", options)
        self._names = [value.get_any_name() for value in self._model.inputs]
        self._outputs = _read([value.get_any_name() for value in self._model.outputs])
        self._of_thread = threading.local()
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
        return _PRECISION_NAMES.get(used, used)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Session.run`; a request runs one batch at a time, so that each thread has its own."""
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._model.create_infer_request()
        arrays = request.infer({name: inputs[name] for name in self._names}, share_inputs=True, share_outputs=True)
        return {name: np.array(arrays[name]) for name in self._outputs}


def _read(outputs: list[str]) -> list[str]:
    """Return the outputs that are read, among those of a file."""
    return [name for name in outputs if name != _FOR_OTHERS or len(outputs) == 1]


def require_bf16() -> None:
    """Check that OpenVINO can compute in bf16 on this processor.

    Raises:
        InvalidParameter: it cannot.
    """
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InvalidParameter(
            "the processor must have bf16 instructions, but this one has none, and would be slower; leave bf16 out"
        )
