"""Quantization: weights in fewer bits, or products of 8-bit numbers."""
