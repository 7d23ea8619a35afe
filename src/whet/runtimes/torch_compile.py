"""PyTorch with the model compiled at its first batch, for any batch size and length.

torch compiles a model class for a few models only, and then runs others as they are without a word: that is why a
search, which brings many models to each runtime, leaves it out.
"""

import os
import shutil
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import nn

from whet.errors import InvalidParameter
from whet.runtimes.base import Runtime
from whet.utils.precision import FP32

__all__ = ["TorchCompile"]


class TorchCompile(Runtime):
    """Runs models by torch.compile."""

    package: ClassVar[str] = "torch"
    for_search: ClassVar[bool] = False

    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> nn.Module:
        """See `Runtime.load`."""
        return cast(nn.Module, torch.compile(model, dynamic=True))

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """See `Runtime.require`; on the CPU torch needs a C++ compiler."""
        super().require(precision, device=device)
        compiler = os.environ.get("CXX", "g++")
        if device == "cpu" and shutil.which(compiler) is None:
            raise InvalidParameter(
                f"{self.name()} needs a C++ compiler, but {compiler} is not here; install g++, or set CXX"
            )
