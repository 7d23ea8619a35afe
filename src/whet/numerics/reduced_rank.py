"""Reduced-rank regression: the best low-rank map between two sets of vectors."""

import torch
from torch import Tensor

from whet.numerics.low_rank import factors_at_rank, output_pca
from whet.numerics.moments import Side, narrower_side

__all__ = ["outer_factor", "reduced_rank_regression"]


RIDGE = 1e-5
"""Added to the inputs' covariance, as a share of its mean eigenvalue."""


def reduced_rank_regression(cross: Tensor, inputs: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return u (out, rank) and v (rank, in) that minimise E‖y − uvx‖².

    Args:
        cross: (out, in) covariance of y and x, float64.
        inputs: (in, in) covariance of x, float64.
        rank: 1 ... min(in, out).
    """
    best = torch.linalg.solve(_ridged(inputs), cross.T).T
    second = inputs if narrower_side(best) is Side.INPUT else best @ inputs @ best.T
    u, v, _ = factors_at_rank(best, output_pca(best, second), rank)
    return u, v


def outer_factor(cross: Tensor, inputs: Tensor, v: Tensor) -> Tensor:
    """Return u (out, rank) that minimises E‖y − uvx‖² for a given v (rank, in); see `reduced_rank_regression`."""
    u: Tensor = torch.linalg.solve(_ridged(v @ inputs @ v.T), v @ cross.T).T
    return u


def _ridged(matrix: Tensor) -> Tensor:
    mean = matrix.diagonal().mean()
    # inputs that never move leave nothing to fit: any positive number keeps the solution finite
    return matrix + torch.eye(len(matrix)).to(matrix) * (RIDGE * mean if mean > 0 else 1)
