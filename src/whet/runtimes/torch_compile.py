"""PyTorch with the model compiled at its first batch, for any batch size and length.

Compiling takes much longer than an export, so searches, which bring many models to each runtime, leave it out.
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

RECOMPILES = 8
"""How often torch compiles one model anew; as many as it allows of itself."""


class TorchCompile(Runtime):
    """Runs models by torch.compile."""

    package: ClassVar[str] = "torch"
    for_search: ClassVar[bool] = False

    def load(self, model: nn.Module, folder: Path, *, precision: str = FP32, threads: int) -> nn.Module:
        """See `Runtime.load`."""
        from torch._dynamo import config

        # torch counts all models of one class together; those beyond its limit run uncompiled, with a mere warning
        config.recompile_limit += RECOMPILES
        config.accumulated_recompile_limit += RECOMPILES
        return cast(nn.Module, torch.compile(model, dynamic=True))

    def require(self, precision: str = FP32, *, device: str = "cpu") -> None:
        """See `Runtime.require`; on the CPU torch needs a C++ compiler."""
        super().require(precision, device=device)
        compiler = os.environ.get("CXX", "g++")
        if device == "cpu" and shutil.which(compiler) is None:
            raise InvalidParameter(
                f"{self.name()} needs a C++ compiler, but {compiler} is not here; install g++, or set CXX"
            )
