"""Weights in few bits: whole numbers and the scales that they count.

In every group of inputs of an output, w ≈ s·q with |q| <= 2**(bits − 1) − 1 and s = max|w| / (2**(bits − 1) − 1). The
largest weight of a group is a whole number of steps, so that what was rounded once stays as it is.

Two thin layers u @ v have one scale for each component to choose, (u_i · c) (v_i / c) = u_i v_i. Where |u_i| = |v_i|,
both are rounded alike; otherwise the components of an output of u are of different sizes, and share its steps. So do
those of what v gives, wherever it is rounded too, and their sizes fall as singular values do. A rotation Q of the
components leaves none large and none small: (u Q) (Q' v) = u v.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877; groups: Shen et al., "Q-BERT: Hessian Based Ultra Low Precision Quantization of BERT",
AAAI 2020, arXiv 1909.05840; rotations that leave what a network computes: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit
Inference in Rotated LLMs", NeurIPS 2024, arXiv 2404.00456. Differs: between the factors of one layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from whet.errors import InvalidModel

__all__ = ["EqualizedFactors", "QuantizedWeight", "equalize_factors", "largest_level", "quantize_weight"]

FINEST = 2.0**-17
"""Least scale in float16: below it, rounding the scale itself would move the largest of 127 steps by half a step."""


class QuantizedWeight(NamedTuple):
    """A weight in few bits."""

    values: Tensor
    """(out, in) int8."""
    scales: Tensor
    """(out, groups); a group without weights has 1."""
    group_size: int
    """Inputs that share a scale; the last group may have fewer."""

    def steps(self) -> Tensor:
        """Return the scale of every weight, (out, in), in float32 at least."""
        scales = self.scales.float() if self.scales.dtype == torch.float16 else self.scales
        return scales.repeat_interleave(self.group_size, 1)[:, : self.values.shape[1]]

    def weight(self) -> Tensor:
        """Return the weight that it stands for, (out, in), in float32 at least."""
        steps = self.steps()
        return self.values.to(steps) * steps


class EqualizedFactors(NamedTuple):
    """Two factors of the same product as before."""

    u: Tensor
    """(out, rank)."""
    v: Tensor
    """(rank, in); each row as long as that column of u."""


def largest_level(bits: int) -> int:
    """Return the largest of the whole numbers; its negative is the least, so that both signs are alike."""
    return int(2 ** (bits - 1) - 1)


def quantize_weight(
    weight: Tensor, *, bits: int = 8, group_size: int | None = None, scale_dtype: torch.dtype | None = None
) -> QuantizedWeight:
    """Return a weight in few bits, each within half a step of what it was.

    Args:
        weight: (out, in), floating.
        bits: 2 ... 8.
        group_size: inputs of an output that share a scale; None: all of them. The last group may be smaller.
        scale_dtype: of the scales; the weight's, if None. In float16 no scale is below 2**-17.

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
        raise InvalidModel(f"weights must be finite, but got {largest.max():g}, which has no scale; train it again")
    values = (groups / scales.to(weight.dtype)[:, :, None]).round().to(torch.int8)
    return QuantizedWeight(values.reshape(weight.shape[0], -1)[:, :inputs].contiguous(), scales, size)


def equalize_factors(u: Tensor, v: Tensor) -> EqualizedFactors:
    """Return factors of the same product whose components are all of one size, in u as in v.

    Args:
        u: (out, rank).
        v: (rank, in).
    """
    columns, rows = u.double().norm(dim=0), v.double().norm(dim=1)
    there = (columns > 0) & (rows > 0)  # a component that is nothing in one factor would only be in the way
    factor = (columns / rows.where(there, 1)).sqrt().where(there, 1)
    rotation = _rotation(len(v)).to(u.device)
    left, right = u.double() / factor * there, v.double() * (factor * there)[:, None]
    return EqualizedFactors((left @ rotation).to(u), (rotation.T @ right).to(v))


def _rotation(size: int) -> Tensor:
    """A random orthogonal matrix, (size, size) float64; the same for every size."""
    gaussian = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    rotation: Tensor = torch.linalg.qr(gaussian).Q
    return rotation
