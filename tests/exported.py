"""A model exported to ONNX gives the same answers at other batch sizes and lengths."""

from pathlib import Path

import numpy as np
import onnxruntime
from torch import nn

from helpers import tiny_batches
from whet.models.inference import predict_logits
from whet.runtimes._onnx import to_onnx
from whet.tasks.data import Batches

NAMES = ["input_ids", "attention_mask"]


def assert_exports(model: nn.Module, path: Path) -> None:
    """Export with one shape and compare at others."""
    to_onnx(model.eval(), NAMES, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    others = tiny_batches(seed=5, batch_size=3)
    for batch in others:
        [found] = session.run(None, {name: batch[name].numpy() for name in NAMES})
        np.testing.assert_allclose(found, predict_logits(model, Batches([batch], np.zeros(3))), atol=1e-4)
