"""Command lines that errors and cards tell users to run, ready to be copied."""

import shlex
from pathlib import Path

from whet.utils.precision import FP32

__all__ = ["export_command"]


def export_command(folder: str | Path, runtime: str, precision: str = FP32) -> str:
    """Return the command that exports a model, whatever signs its path has.

    Args:
        folder: of the model.
        runtime: such as onnxruntime.
        precision: such as int8.
    """
    words = ["whet", "export", str(folder), "--to", runtime]
    return shlex.join([*words, *([] if precision == FP32 else ["--precision", precision])])
