"""ONNX Runtime on the CPU, from `model.onnx` beside the weights: the layout that Optimum reads too.

In int8, weights are rounded to 8 bits with a scale for each output, and inputs too, with a range taken from each batch;
in static_int8 the range was taken from calibration data. Word embeddings are stored in 8 bits with a scale for each
word. Layer norms, attention and the head stay in fp32.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from whet.runtimes._onnx import flat_attention, nodes_below, round_tables
from whet.runtimes.base import Conversion, ExportRuntime, Session
from whet.utils.hardware import supports_products
from whet.utils.precision import FP32, INT8, STATIC_INT8

__all__ = ["OnnxRuntime"]

FILES = {FP32: "model.onnx", INT8: "model_quantized.onnx", STATIC_INT8: "model_static_quantized.onnx"}
KINDS = ("MatMul", "Gemm", "LSTM")
SLOW = ("SkipLayerNormFusion",)
"""Fusions that cost time: one operator took five times as long as the two that it replaces (1.31, AVX-512)."""


class OnnxRuntime(ExportRuntime):
    """Runs models by onnxruntime."""

    extra: ClassVar[str] = "onnx"
    package: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {name: (file,) for name, file in FILES.items()}
    calibrated: ClassVar[frozenset[str]] = frozenset({STATIC_INT8})

    def convert(self, conversion: Conversion, folder: Path) -> None:
        """See `ExportRuntime.convert`."""
        import onnx

        flat, place = flat_attention(conversion.onnx), folder / FILES[conversion.precision]
        if conversion.precision == FP32:
            onnx.save(flat, place)
            return
        round_tables(flat)
        with _quiet():
            _quantize(flat, place, conversion)

    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """See `ExportRuntime.open`."""
        return _OnnxSession(folder / FILES[precision], precision, threads)


def _quantize(model: Any, place: Path, conversion: Conversion) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self, names: list[str]) -> None:
            self.left = iter([{name: batch[name].numpy() for name in names} for batch in conversion.batches])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    layers = conversion.layers
    nodes = [node.name for node in model.graph.node] if layers is None else nodes_below(model, layers)
    nodes += [f"{name}_MatMul" for name in nodes]  # what it makes of a Gemm
    options = {
        "op_types_to_quantize": list(KINDS),
        "nodes_to_quantize": nodes or ["none"],  # (of an empty list it makes all)
        "per_channel": True,
        # without such instructions sums of products of 8 bits overflow
        "reduce_range": not supports_products("int8"),
        "weight_type": QuantType.QInt8,
    }
    if conversion.precision == INT8:
        quantize_dynamic(model, place, **options)
    else:
        names = [one.name for one in model.graph.input]
        quantize_static(model, place, Reader(names), **options, activation_type=QuantType.QUInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It advises on standard logging what is done here already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _OnnxSession(Session):
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.precision = precision
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOW)
        )
        self._names = [one.name for one in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """See `Session.run`."""
        found: np.ndarray[Any, Any] = self._session.run(None, {name: inputs[name] for name in self._names})[0]
        return found
