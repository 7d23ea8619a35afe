"""ONNX Runtime on the CPU, from `model.onnx` beside the weights: the layout that Optimum reads too."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from whet.runtime import Predict, Runtime

__all__ = ["OnnxRuntime"]

FILE = "model.onnx"


class OnnxRuntime(Runtime):
    """Runs models by onnxruntime."""

    extra: ClassVar[str] = "onnx"
    package: ClassVar[str] = "onnxruntime"
    files: ClassVar[tuple[str, ...]] = (FILE,)

    def convert(self, onnx: Path, folder: Path) -> None:
        """See `Runtime.convert`."""
        shutil.copyfile(onnx, folder / FILE)

    def open(self, folder: Path, *, threads: int) -> Predict:
        """See `Runtime.open`."""
        return _Session(folder / FILE, threads)


class _Session(Predict):
    precision = "float32"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_inputs()]

    def __call__(self, batch: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
        """See `Predict.__call__`."""
        found: np.ndarray[Any, Any] = self._session.run(None, {name: batch[name].numpy() for name in self._names})[0]
        return found
