"""A model exported to ONNX gives the same answers at other batch sizes and lengths."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from helpers import tiny_batches
from whet.passes import answers
from whet.resources import Batches

NAMES = ["input_ids", "attention_mask"]


class Flat(nn.Module):
    """Gives a tensor, as exporters want."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def assert_exports(model: nn.Module, path: Path) -> None:
    """Export with one shape and compare at others."""
    first, moving = tiny_batches().batches[3], torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Flat(model).eval(),
        tuple(first[name] for name in NAMES),
        path,
        input_names=NAMES,
        output_names=["logits"],
        dynamic_shapes={name: {0: moving, 1: moving} for name in NAMES},
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    others = tiny_batches(seed=5, batch_size=3)
    for batch in others:
        [found] = session.run(None, {name: batch[name].numpy() for name in NAMES})
        np.testing.assert_allclose(found, answers(model, Batches([batch], np.zeros(3))), atol=1e-4)
