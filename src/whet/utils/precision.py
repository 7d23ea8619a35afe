"""Names of runtimes and precisions, spelled once."""

from typing import Literal

__all__ = ["BF16", "FP32", "INT8", "PYTORCH", "STATIC_INT8", "ComputePrecision"]


FP32, BF16, INT8, STATIC_INT8 = "fp32", "bf16", "int8", "static_int8"
"""Precisions: all of fp32; products in bf16; products of linear layers in int8; ranges of their inputs fixed ahead."""


PYTORCH = "pytorch"
"""The runtime that every model is loaded in, and where models run if nothing else is asked for."""


ComputePrecision = Literal["fp32", "bf16"]
"""What matrix products of a training are computed in; weights, gradients and losses are in float32."""
