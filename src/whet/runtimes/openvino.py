"""OpenVINO on the CPU, in fp32, from `openvino_model.xml` and `.bin` beside the weights: Optimum's layout.

On processors with bf16, OpenVINO computes in it unless told otherwise; here it is told, and asked what it does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from whet.runtime import Predict, Runtime

__all__ = ["OpenVino"]

FILES = ("openvino_model.xml", "openvino_model.bin")
PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class OpenVino(Runtime):
    """Runs models by openvino."""

    extra: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"
    files: ClassVar[tuple[str, ...]] = FILES

    def convert(self, onnx: Path, folder: Path) -> None:
        """See `Runtime.convert`."""
        import openvino

        openvino.save_model(openvino.convert_model(onnx), folder / FILES[0], compress_to_fp16=False)

    def open(self, folder: Path, *, threads: int) -> Predict:
        """See `Runtime.open`."""
        return _Compiled(folder / FILES[0], threads)


class _Compiled(Predict):
    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        wanted = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._model = openvino.Core().compile_model(path, "CPU", wanted)
        self._names = [one.get_any_name() for one in self._model.inputs]
        used = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = PRECISIONS.get(used, used)

    def __call__(self, batch: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
        """See `Predict.__call__`."""
        found: np.ndarray[Any, Any] = self._model({name: batch[name].numpy() for name in self._names})[0]
        return np.array(found)
