"""PyTorch itself, which every model is loaded in: nothing is converted, and weights stay as they are stored."""

from pathlib import Path
from typing import ClassVar

from torch import nn

from whet.runtimes.base import Runtime
from whet.utils.precision import FP32

__all__ = ["PyTorch"]


class PyTorch(Runtime):
    """Runs models as they are."""

    package: ClassVar[str] = "torch"

    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> nn.Module:
        """See `Runtime.load`; PyTorch has one number of threads for everything."""
        return model
