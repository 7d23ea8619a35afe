"""The mathematics of taking inputs away from a linear layer while the others make up for them.

With C the covariance of the inputs x and G the second moment of the gradient at the outputs, replacing W by W' costs
½ tr(G ΔW C ΔWᵀ) in KL. When input j goes and the others make up for it as well as they can, that is

    ½ (wⱼᵀ G wⱼ) / [C⁻¹]ⱼⱼ,   with wₖ ← wₖ − wⱼ [C⁻¹]ⱼₖ / [C⁻¹]ⱼⱼ   and   C⁻¹ ← C⁻¹ − [C⁻¹]₋ⱼ [C⁻¹]ⱼ₋ / [C⁻¹]ⱼⱼ,

so that the cheapest can go one after the other. Of W only B = WᵀGW is needed, which the same step changes by two outer
products. Groups of inputs go in the same way, with blocks in the place of numbers. The steps of single inputs are kept
as rows, and some of them multiplied out together: the order is that of single steps, the cost that of a few products of
matrices. What the inputs that stay are multiplied by then follows by regression.

Source: Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from whet.numerics.linalg import diagonal_blocks

__all__ = ["CompensatedWeight", "RemovalOrder", "add_damping", "compensate_for_removed", "removal_order"]

BLOCK = 128
"""Steps that are multiplied out together."""


class RemovalOrder(NamedTuple):
    """In which order inputs, or groups of them, go, and what that costs."""

    order: Tensor
    """(groups,) the first to go first."""
    losses: Tensor
    """(groups + 1,) loss with k of them left, k = 0 ... groups, falling to zero; comparable between layers."""

    def kept(self, count: int) -> Tensor:
        """Return the (count,) that stay, in their own order."""
        return self.order[len(self.order) - count :].sort().values


class CompensatedWeight(NamedTuple):
    """A layer that reads fewer inputs."""

    weight: Tensor
    """(out, kept)."""
    shift: Tensor
    """(out,) to add to the bias, so that the mean output stays."""


def add_damping(covariance: Tensor, damping: float) -> Tensor:
    """Return the (n, n) covariance with this share of its mean variance added to every variance."""
    mean = float(covariance.diagonal().mean())
    # inputs that never move have no variance to scale by; any positive number keeps the inverse finite
    floor = damping * mean if mean > 0 else 1.0
    return covariance + floor * torch.eye(len(covariance)).to(covariance)


def removal_order(covariance: Tensor, weighed: Tensor, *, width: int = 1) -> RemovalOrder:
    """Return the order in which inputs go, or groups of them, each time what costs least.

    Args:
        covariance: (n, n) C of the inputs, positive definite, float64; see `add_damping`.
        weighed: (n, n) WᵀGW, positive semi-definite, float64.
        width: inputs of a group, that go together; it divides n.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    return _one_by_one(inverse, weighed) if width == 1 else _in_groups(inverse, weighed, width)


def _one_by_one(inverse: Tensor, weighed: Tensor) -> RemovalOrder:
    left = torch.arange(len(inverse), device=inverse.device)
    order: list[Tensor] = []
    costs: list[Tensor] = []
    while len(left):
        steps = _Steps(inverse, weighed, min(BLOCK, len(left)))
        gone, own = steps.run()
        stays = torch.ones(len(left), dtype=torch.bool, device=left.device)
        stays[gone] = False
        order.append(left[gone])
        costs.append(own)
        left = left[stays]
        inverse, weighed = steps.multiplied_out(stays)
    return _removal(torch.cat(order), torch.cat(costs))


def _in_groups(inverse: Tensor, weighed: Tensor, width: int) -> RemovalOrder:
    """Few groups are wide: their steps are products of matrices already."""
    left = list(range(len(inverse) // width))
    order: list[int] = []
    costs: list[Tensor] = []
    while left:
        among = diagonal_blocks(inverse, width)
        scores = torch.linalg.solve(among, diagonal_blocks(weighed, width)).diagonal(dim1=1, dim2=2).sum(1) / 2
        j = int(scores.argmin())
        order.append(left.pop(j))
        costs.append(scores[j].clamp_min(0))
        gone = slice(j * width, (j + 1) * width)
        taken = torch.linalg.solve(among[j], inverse[gone])
        lost = weighed[:, gone] @ taken
        stays = torch.ones(len(inverse), dtype=torch.bool, device=inverse.device)
        stays[gone] = False
        weighed = (weighed - lost - lost.T + taken.T @ weighed[gone, gone] @ taken)[stays][:, stays]
        inverse = (inverse - inverse[:, gone] @ taken)[stays][:, stays]
    return _removal(torch.tensor(order, device=inverse.device), torch.stack(costs))


def _removal(order: Tensor, costs: Tensor) -> RemovalOrder:
    return RemovalOrder(order, torch.cat([costs.new_zeros(1), costs.cumsum(0)]).flip(0))


class _Steps:
    """Some removals in a row, whose effect on the matrices is kept as outer products."""

    def __init__(self, inverse: Tensor, weighed: Tensor, count: int) -> None:
        self.inverse, self.weighed = inverse, weighed
        # C⁻¹ loses p u uᵀ, B loses u vᵀ + v uᵀ
        self.p = inverse.new_zeros(count)
        self.u = inverse.new_zeros(count, len(inverse))
        self.v = inverse.new_zeros(count, len(inverse))

    def run(self) -> tuple[Tensor, Tensor]:
        """Return which inputs go, in order, and what each costs."""
        variances, numerators = self.inverse.diagonal().clone(), self.weighed.diagonal().clone()
        gone, costs = [], []
        for t in range(len(self.p)):
            scores = numerators.clamp_min(0) / variances
            j = int(scores.argmin())
            gone.append(j)
            costs.append(scores[j] / 2)
            p, u, v = self.p[:t], self.u[:t], self.v[:t]
            # (one product for both: it is reading u that takes the time)
            of_inverse, of_weighed = torch.stack([p * u[:, j], v[:, j]]) @ u
            column = self.inverse[j] - of_inverse
            weighed = self.weighed[j] - of_weighed - u[:, j] @ v
            self.p[t] = column[j]
            self.u[t] = column / column[j]
            self.v[t] = weighed - weighed[j] / 2 * self.u[t]
            variances -= self.p[t] * self.u[t].square()
            numerators -= 2 * self.u[t] * self.v[t]
            # what is gone is never the cheapest again
            variances[gone], numerators[gone] = 1.0, torch.inf
        return torch.tensor(gone, device=self.p.device), torch.stack(costs)

    def multiplied_out(self, stays: Tensor) -> tuple[Tensor, Tensor]:
        """Return C⁻¹ and B of the inputs that stay."""
        u, v = self.u[:, stays], self.v[:, stays]
        inverse, weighed = (matrix[stays][:, stays] for matrix in (self.inverse, self.weighed))
        inverse.addmm_((self.p[:, None] * u).T, u, alpha=-1)
        weighed.addmm_(torch.cat([u, v]).T, torch.cat([v, u]), alpha=-1)
        return inverse, weighed


def compensate_for_removed(weight: Tensor, covariance: Tensor, mean: Tensor, kept: Tensor) -> CompensatedWeight:
    """Return what the inputs that stay are multiplied by: the regression of the whole output on them.

    Args:
        weight: (out, n), any float dtype; computed in float64, returned in its dtype.
        covariance: (n, n) of the inputs, positive definite, float64.
        mean: (n,) of the inputs, float64.
        kept: (kept,) places of the inputs that stay; or (kept, n) float64, what is read instead of the inputs x, as Qx.
    """
    dense = weight.double()

    def read(of: Tensor) -> Tensor:
        return kept @ of if kept.is_floating_point() else of[kept]

    cross = read(covariance)
    own = torch.cholesky_solve(cross @ dense.T, torch.linalg.cholesky(read(cross.T))).T
    return CompensatedWeight(own.to(weight), (dense @ mean - own @ read(mean)).to(weight))
