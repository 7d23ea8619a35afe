"""Quantization: weights are stored in fewer bits, or multiplied as 8-bit integers."""
