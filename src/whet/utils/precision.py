"""The names of precisions, of the default runtime, and of types of vectors."""

from typing import Literal

__all__ = ["BF16", "FP32", "INT8", "PYTORCH", "STATIC_INT8", "ComputePrecision", "VectorType"]


FP32, BF16, INT8, STATIC_INT8 = "fp32", "bf16", "int8", "static_int8"
"""Precisions of a runtime: fp32; matrix products in bf16; linear layers in int8; int8 with fixed input ranges."""


PYTORCH = "pytorch"
"""The default runtime."""


ComputePrecision = Literal["fp32", "bf16"]
"""Precision of matrix products in training; weights, gradients and losses are in fp32."""


VectorType = Literal["float32", "int8", "binary"]
"""How the numbers of a vector are kept: as they are, in 8 bits each, or their signs, eight in a byte."""
