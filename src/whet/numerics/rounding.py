"""Symmetric quantization of weights: integers of few bits and one scale per group.

Every output's inputs are split into groups; in each, w ≈ s·q with |q| <= 2**(bits − 1) − 1 and
s = max|w| / (2**(bits − 1) − 1). The largest weight of a group is an exact multiple of s, so that a quantized weight
does not change when it is quantized again.

Factors u @ v quantize better once their components are equalized. A scale moves freely between the factors,
(u_i · c) (v_i / c) = u_i v_i, and |u_i| = |v_i| gives both factors the same relative error. The components still
differ in size, as singular values do, while all components of one output share a scale. An orthogonal rotation Q evens
the sizes out and leaves the product unchanged: (u Q) (Qᵀ v) = u v.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877; groups: Shen et al., "Q-BERT: Hessian Based Ultra Low Precision Quantization of BERT",
AAAI 2020, arXiv 1909.05840; rotations: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs",
NeurIPS 2024, arXiv 2404.00456.
Differs: the rotation stands between the two factors of one layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from whet.errors import InvalidModel

__all__ = ["EqualizedFactors", "QuantizedWeight", "equalize_factors", "largest_level", "quantize_weight"]

FINEST = 2.0**-17
"""Smallest scale in float16: below it, rounding the scale alone would move the largest of 127 levels by half a step."""


class QuantizedWeight(NamedTuple):
    """A quantized weight: integers and their scales."""

    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out, groups); a group of zeros has scale 1."""
    group_size: int
    """Inputs that share a scale; the last group may have fewer."""

    def steps(self) -> Tensor:
        """Return the scale of every weight, (out, in), at least in float32."""
        scales = self.scales.float() if self.scales.dtype == torch.float16 else self.scales
        return scales.repeat_interleave(self.group_size, 1)[:, : self.values.shape[1]]

    def weight(self) -> Tensor:
        """Return the dequantized weight, (out, in), at least in float32."""
        steps = self.steps()
        return self.values.to(steps) * steps


class EqualizedFactors(NamedTuple):
    """Factors whose product is that of the original factors."""

    u: Tensor
    """(out, rank)."""
    v: Tensor
    """(rank, in)."""


def largest_level(bits: int) -> int:
    """Return the largest integer of the symmetric range, 2**(bits − 1) − 1; the smallest is its negative."""
    return int(2 ** (bits - 1) - 1)


def quantize_weight(
    weight: Tensor, *, bits: int = 8, group_size: int | None = None, scale_dtype: torch.dtype | None = None
) -> QuantizedWeight:
    """Return the quantized weight; every weight changes by at most half a step.

    Args:
        weight: (out, in), any float dtype.
        bits: bits per weight, 2 ... 8.
        group_size: inputs of an output that share a scale, the last group possibly fewer; None means all inputs.
        scale_dtype: dtype of the scales; that of `weight` if None. A float16 scale is at least 2**-17.

    Raises:
        InvalidModel: a weight is not finite, or too large for a scale of that dtype.
    """
    inputs = weight.shape[1]
    size = max(1, min(group_size or inputs, inputs))
    groups = pad(weight, (0, -inputs % size)).reshape(weight.shape[0], -1, size)
    largest = groups.abs().amax(2)
    finest = FINEST if scale_dtype == torch.float16 else 0.0
    scales = torch.where(largest == 0, 1, (largest / largest_level(bits)).clamp_min(finest)).to(
        scale_dtype or weight.dtype
    )
    if not scales.isfinite().all():
        raise InvalidModel(
            f"weights must be finite and have a finite scale, but got {largest.max():g}; train the model again"
        )
    values = (groups / scales.to(weight.dtype)[:, :, None]).round().to(torch.int8)
    return QuantizedWeight(values.reshape(weight.shape[0], -1)[:, :inputs].contiguous(), scales, size)


def equalize_factors(u: Tensor, v: Tensor) -> EqualizedFactors:
    """Return factors with the same product and evenly sized components, in the dtype of u and v.

    Args:
        u: (out, rank).
        v: (rank, in).
    """
    columns, rows = u.double().norm(dim=0), v.double().norm(dim=1)
    nonzero = (columns > 0) & (rows > 0)  # a component that is zero in one factor adds nothing: drop it from both
    factor = (columns / rows.where(nonzero, 1)).sqrt().where(nonzero, 1)
    rotation = _rotation(len(v)).to(u.device)
    left, right = u.double() / factor * nonzero, v.double() * (factor * nonzero)[:, None]
    return EqualizedFactors((left @ rotation).to(u), (rotation.T @ right).to(v))


def _rotation(size: int) -> Tensor:
    """Return a random orthogonal (size, size) matrix in float64, always the same one for a size."""
    gaussian = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    rotation: Tensor = torch.linalg.qr(gaussian).Q
    return rotation
