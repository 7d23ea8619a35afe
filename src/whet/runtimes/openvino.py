"""OpenVINO on the CPU; it reads `openvino_model.xml` and `.bin` beside the weights, which is Optimum's layout.

In int8, NNCF rounds the weights and inputs of matrix products, with ranges from calibration data, and
corrects the biases; word embeddings are stored in 8 bits with one scale per word.
"""

import contextlib
import io
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from whet.errors import InvalidModel
from whet.run.sessions import OPENVINO_FILES, OpenVinoSession, Session, require_bf16
from whet.runtimes._onnx import external_files, has_branches, nodes_of, quantize_embeddings, save_graph
from whet.runtimes.base import Conversion, ExportRuntime
from whet.utils.precision import BF16, FP32, INT8

__all__ = ["OpenVino"]

_COUNTED = re.compile(r"\b([A-Z][A-Za-z]*)_\d+\b")
"""How openvino names operations: by their type, which ONNX's own names do not begin with, and a number."""


class OpenVino(ExportRuntime):
    """The runtime `openvino`."""

    extra: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = OPENVINO_FILES
    calibrated: ClassVar[frozenset[str]] = frozenset({INT8})
    converters: ClassVar[Mapping[str, str]] = {INT8: "nncf"}

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """See `Runtime.require`."""
        super().require(precision, device=device)
        if precision == BF16:
            require_bf16()

    def convert(self, conversion: Conversion, folder: Path) -> None:
        """See `ExportRuntime.convert`."""
        import openvino

        model = _quantized(conversion) if conversion.precision == INT8 else _read(conversion.onnx)
        path = folder / self.precisions[conversion.precision][0]
        _number_by_place(model)
        openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, folder: Path, *, precision: str = FP32, threads: int) -> Session:
        """See `ExportRuntime.open`."""
        return OpenVinoSession(folder / self.precisions[precision][0], precision, threads)


def _number_by_place(model: Any) -> None:
    """Number the operations that have no name of their own by their place.

    openvino counts them over the whole process, so that no two exports of a model would be the same bytes.
    """
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(_COUNTED.sub(rf"\g<1>_{place}", node.get_friendly_name()))


def _read(path: Path) -> Any:
    import openvino

    if external_files(path):
        return openvino.Core().read_model(path)
    return openvino.convert_model(io.BytesIO(path.read_bytes()))  # openvino would split a path at a comma


def _quantized(conversion: Conversion) -> Any:
    import nncf
    import onnx

    graph = onnx.load(conversion.onnx)
    if has_branches(graph):
        raise InvalidModel(
            "NNCF must be able to quantize all parts of the model, but got a cascade, whose branches it cannot; export "
            "it to OpenVINO in fp32, or to onnxruntime"
        )
    quantize_embeddings(graph)
    small = conversion.onnx.with_name("quantized_embeddings.onnx")
    save_graph(graph, small)
    model = _read(small)
    _number_by_place(model)  # nncf writes down which operations it leaves as they are
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
