"""What studies, benchmarks and other packages may import from this wing."""

from ._onnx import flat_attention as flat_attention
from ._onnx import to_onnx as to_onnx
from .base import Conversion as Conversion
from .base import exporter_named as exporter_named
from .base import runtime_named as runtime_named
from .export import CALIBRATION as CALIBRATION
from .onnxruntime import OnnxRuntime as OnnxRuntime
