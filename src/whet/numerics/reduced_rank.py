"""Reduced-rank regression: the linear map of rank k from x to y that minimises E‖y − uvx‖².

The unrestricted regression B = E[y xᵀ] E[x xᵀ]⁻¹ comes first; its best approximation of rank k in the metric of the
inputs, `output_pca`, is the solution.

Source: Izenman, "Reduced-rank regression for the multivariate linear model", Journal of Multivariate Analysis 5, 1975,
doi 10.1016/0047-259X(75)90042-1.
Differs: a small ridge keeps the regression finite for rank-deficient inputs.
"""

import torch
from torch import Tensor

from whet.numerics.low_rank import factors_at_rank, output_pca
from whet.numerics.moments import Side, narrower_side

__all__ = ["outer_factor", "reduced_rank_regression"]


RIDGE = 1e-5
"""Ridge added to the covariance of the inputs, as a fraction of its mean eigenvalue."""


def reduced_rank_regression(cross: Tensor, inputs: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return u (out, rank) and v (rank, in) that minimise E‖y − uvx‖².

    Args:
        cross: (out, in) covariance of y and x, float64.
        inputs: (in, in) covariance of x, float64.
        rank: 1 ... min(in, out).
    """
    regression = torch.linalg.solve(_add_ridge(inputs), cross.T).T
    second = inputs if narrower_side(regression) is Side.INPUT else regression @ inputs @ regression.T
    u, v, _ = factors_at_rank(regression, output_pca(regression, second), rank)
    return u, v


def outer_factor(cross: Tensor, inputs: Tensor, v: Tensor) -> Tensor:
    """Return u (out, rank) that minimises E‖y − uvx‖² for a given v (rank, in); see `reduced_rank_regression`."""
    u: Tensor = torch.linalg.solve(_add_ridge(v @ inputs @ v.T), v @ cross.T).T
    return u


def _add_ridge(matrix: Tensor) -> Tensor:
    mean = matrix.diagonal().mean()
    # constant inputs leave nothing to fit; any positive number keeps the solution finite
    return matrix + torch.eye(len(matrix)).to(matrix) * (RIDGE * mean if mean > 0 else 1)
