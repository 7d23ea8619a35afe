"""ONNX Runtime on the CPU; it reads `model.onnx` beside the weights, the layout that Optimum reads too.

In int8, weights are rounded to 8 bits with one scale per output, and inputs with the range of each batch. In
static_int8, the range of the inputs comes from calibration data. Word embeddings are stored in 8 bits with one scale
per word. Layer norms, attention and the head stay in fp32.
"""

import contextlib
import importlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from whet.run.sessions import ONNX_FILES, OnnxSession, Session
from whet.runtimes._onnx import (
    external_files,
    flat_attention,
    has_branches,
    is_large,
    nodes_of,
    opset_of,
    quantize_embeddings,
    save_graph,
    separate_weights,
)
from whet.runtimes.base import Conversion, ExportRuntime
from whet.utils.hardware import supports_products
from whet.utils.precision import FP32, INT8, STATIC_INT8
from whet.utils.scratch import temporary_folder

__all__ = ["OnnxRuntime"]

LEAST_VERSIONS = {18: "1.18", 19: "1.18", 20: "1.18", 21: "1.18", 22: "1.22", 23: "1.23"}
"""A version of ONNX Runtime that runs each version of ONNX's operators in files as torch writes them."""
QUANTIZED_OPERATORS = ("MatMul", "Gemm", "LSTM")


class OnnxRuntime(ExportRuntime):
    """The runtime `onnxruntime`."""

    extra: ClassVar[str] = "onnx"
    reads: ClassVar[str] = "onnx"
    package: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {name: (file,) for name, file in ONNX_FILES.items()}
    calibrated: ClassVar[frozenset[str]] = frozenset({STATIC_INT8})

    def convert(self, conversion: Conversion, folder: Path) -> None:
        """See `ExportRuntime.convert`."""
        flat, path = flat_attention(conversion.onnx), folder / ONNX_FILES[conversion.precision]
        if conversion.precision == FP32:
            save_graph(flat, path)
            return
        quantize_embeddings(flat)
        separate_weights(flat)
        with _quiet():
            _quantize(flat, path, conversion)

    def needs(self, folder: Path, precision: str) -> dict[str, Any]:
        """See `ExportRuntime.needs`."""
        opset = opset_of(folder / ONNX_FILES[precision])
        return {"opset": opset, "onnxruntime": f">={LEAST_VERSIONS[opset]}"}

    def reads_besides(self, folder: Path, precision: str) -> set[str]:
        """See `ExportRuntime.reads_besides`."""
        return external_files(folder / ONNX_FILES[precision])

    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """See `ExportRuntime.open`."""
        return OnnxSession(folder / ONNX_FILES[precision], precision, threads)


def _quantize(model: Any, path: Path, conversion: Conversion) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    for name in ("quantize", "quant_utils"):
        # it keeps copies of the model in temporary folders, which would stay after a kill
        module: Any = importlib.import_module(f"onnxruntime.quantization.{name}")
        module.tempfile = SimpleNamespace(TemporaryDirectory=lambda prefix: temporary_folder())

    class Reader(CalibrationDataReader):
        def __init__(self, names: list[str]) -> None:
            self.left = iter([{name: batch[name].numpy() for name in names} for batch in conversion.batches])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    layers = conversion.layers
    nodes = [node.name for node in model.graph.node] if layers is None else nodes_of(model, layers)
    nodes += [f"{name}_MatMul" for name in nodes]  # onnxruntime renames a Gemm to this
    options = {
        "op_types_to_quantize": list(QUANTIZED_OPERATORS),
        "nodes_to_quantize": nodes or ["none"],  # an empty list would quantize all nodes
        "per_channel": True,
        # without int8 instructions, sums of 8-bit products overflow 16 bits
        "reduce_range": not supports_products("int8"),
        "weight_type": QuantType.QInt8,
        "use_external_data_format": is_large(model),
        "extra_options": {"EnableSubgraph": has_branches(model)},
    }
    if conversion.precision == INT8:
        quantize_dynamic(model, path, **options)
    else:
        names = [value.name for value in model.graph.input]
        quantize_static(model, path, Reader(names), **options, activation_type=QuantType.QUInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's advice to preprocess the model, which is done here already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
