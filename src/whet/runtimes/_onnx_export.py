"""A classifier as one ONNX file, for any batch size and length."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from whet.errors import InvalidModel
from whet.models.layers.quantized import Int8

__all__ = ["to_onnx"]

OPSET, WITHOUT_ROTARY = 23, 20
"""23 is the first with attention as one operator; its rotary positions run in ONNX Runtime for one example alone."""


class _Logits(nn.Module):
    """Gives a tensor, as exporters want."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def to_onnx(model: nn.Module, example: Mapping[str, Tensor], path: Path) -> None:
    """Write a model that gives `logits` of inputs of any batch size and length.

    Args:
        model: in eval mode, on the CPU.
        example: inputs by name, in the order of the model's arguments, each (batch, length) int64.
        path: the file.

    Raises:
        InvalidModel: something in it has no form in ONNX, or it multiplies 8-bit numbers in PyTorch.
    """
    if any(isinstance(module, Int8) for module in model.modules()):
        raise InvalidModel(
            "the model must multiply in float, but got one that is already quantized for PyTorch; export the model "
            "that it was made from, with --precision int8"
        )
    moving = torch.export.Dim.DYNAMIC
    rotary = any("rotary" in name.lower() for name, _ in model.named_modules())
    # once an export went through it, torch keeps a way to run an LSTM that fixes the length of the next one
    getattr(torch.ops.aten.lstm.input, "_dispatch_cache", {}).clear()
    try:
        # (the exporter reports on standard output and warns of what concerns nobody here; what layers do for their
        # gradients is no part of the model)
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            _quiet("torch.onnx"),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model, tuple(example)),
                tuple(example.values()),
                path,
                input_names=list(example),
                output_names=["logits"],
                dynamic_shapes=(tuple({0: moving, 1: moving} for _ in example),),
                opset_version=WITHOUT_ROTARY if rotary else OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        reason = " ".join(str(root).split())[:300]
        raise InvalidModel(
            f"the model must have a form in ONNX, but torch says: {reason}; run it in PyTorch"
        ) from error


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
