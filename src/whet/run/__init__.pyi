"""What applications, studies, benchmarks and other packages may import from this wing."""

from .predictor import Prediction as Prediction
from .predictor import Predictor as Predictor
from .predictor import load as load
from .sessions import ONNX_FILES as ONNX_FILES
from .sessions import OPENVINO_FILES as OPENVINO_FILES
from .sessions import SLOW_FUSIONS as SLOW_FUSIONS
from .sessions import Session as Session
