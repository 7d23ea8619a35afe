"""Optimal Brain Surgeon for the inputs of a linear layer: remove inputs while the remaining ones compensate.

With C the covariance of the inputs x and G the second moment of the gradients at the outputs, replacing W by W' costs
½ tr(G ΔW C ΔWᵀ) in KL. Removing input j with the best compensation costs

    ½ (wⱼᵀ G wⱼ) / [C⁻¹]ⱼⱼ,   with wₖ ← wₖ − wⱼ [C⁻¹]ⱼₖ / [C⁻¹]ⱼⱼ   and   C⁻¹ ← C⁻¹ − [C⁻¹]₋ⱼ [C⁻¹]ⱼ₋ / [C⁻¹]ⱼⱼ,

so that the cheapest input can be removed again and again. The scores need only B = WᵀGW of the weight, and a removal
changes B by two outer products. Groups of inputs are removed in the same way, with blocks instead of scalars. The outer
products of up to `BLOCK` removals are stored and applied in one matrix product: the order is exact, the cost that of a
few matrix products. The weights of the remaining inputs then follow by regression.

Source: Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992.
Differs: all outputs of a layer lose the same input, and the updates of C⁻¹ and B are applied in blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from whet.numerics.linalg import diagonal_blocks

__all__ = ["CompensatedWeight", "RemovalOrder", "add_damping", "compensate_for_removed", "removal_order"]

BLOCK = 128
"""Removals whose outer products are applied together."""


class RemovalOrder(NamedTuple):
    """The order in which inputs, or groups of inputs, are removed, and the loss of each removal."""

    order: Tensor
    """(groups,) int64 indices; the first one is removed first."""
    losses: Tensor
    """(groups + 1,) loss with k groups kept, k = 0 ... groups, descending to zero; comparable between layers."""

    def kept(self, count: int) -> Tensor:
        """Return the ascending indices of the last `count` groups in the order, (count,)."""
        return self.order[len(self.order) - count :].sort().values


class CompensatedWeight(NamedTuple):
    """The weight of a layer with fewer inputs, and the correction of its bias."""

    weight: Tensor
    """(out, kept)."""
    shift: Tensor
    """(out,) to add to the bias, so that the mean output is unchanged."""


def add_damping(covariance: Tensor, damping: float) -> Tensor:
    """Return the (n, n) covariance with `damping` times its mean variance added to the diagonal."""
    mean = float(covariance.diagonal().mean())
    # constant inputs have no variance to scale by; any positive number keeps the inverse finite
    floor = damping * mean if mean > 0 else 1.0
    return covariance + floor * torch.eye(len(covariance)).to(covariance)


def removal_order(covariance: Tensor, weighed: Tensor, *, width: int = 1) -> RemovalOrder:
    """Return the greedy order of removal: the cheapest input, or group of inputs, at every step.

    Args:
        covariance: (n, n) C, positive definite, float64; see `add_damping`.
        weighed: (n, n) B = WᵀGW, positive semi-definite, float64.
        width: inputs of one group, which are removed together; `width` divides n.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    return _remove_singly(inverse, weighed) if width == 1 else _remove_groups(inverse, weighed, width)


def _remove_singly(inverse: Tensor, weighed: Tensor) -> RemovalOrder:
    remaining = torch.arange(len(inverse), device=inverse.device)
    order: list[Tensor] = []
    costs: list[Tensor] = []
    while len(remaining):
        block = _RemovalBlock(inverse, weighed, min(BLOCK, len(remaining)))
        removed, block_costs = block.run()
        kept = torch.ones(len(remaining), dtype=torch.bool, device=remaining.device)
        kept[removed] = False
        order.append(remaining[removed])
        costs.append(block_costs)
        remaining = remaining[kept]
        inverse, weighed = block.apply(kept)
    return _removal_order(torch.cat(order), torch.cat(costs))


def _remove_groups(inverse: Tensor, weighed: Tensor, width: int) -> RemovalOrder:
    # without blocks of removals: with groups, every step is a matrix product already
    remaining = list(range(len(inverse) // width))
    order: list[int] = []
    costs: list[Tensor] = []
    while remaining:
        blocks = diagonal_blocks(inverse, width)
        scores = torch.linalg.solve(blocks, diagonal_blocks(weighed, width)).diagonal(dim1=1, dim2=2).sum(1) / 2
        j = int(scores.argmin())
        order.append(remaining.pop(j))
        costs.append(scores[j].clamp_min(0))
        group = slice(j * width, (j + 1) * width)
        update = torch.linalg.solve(blocks[j], inverse[group])
        cross = weighed[:, group] @ update
        kept = torch.ones(len(inverse), dtype=torch.bool, device=inverse.device)
        kept[group] = False
        weighed = (weighed - cross - cross.T + update.T @ weighed[group, group] @ update)[kept][:, kept]
        inverse = (inverse - inverse[:, group] @ update)[kept][:, kept]
    return _removal_order(torch.tensor(order, device=inverse.device), torch.stack(costs))


def _removal_order(order: Tensor, costs: Tensor) -> RemovalOrder:
    return RemovalOrder(order, torch.cat([costs.new_zeros(1), costs.cumsum(0)]).flip(0))


class _RemovalBlock:
    """Consecutive removals, whose effect on C⁻¹ and B is stored as outer products."""

    def __init__(self, inverse: Tensor, weighed: Tensor, count: int) -> None:
        self.inverse, self.weighed = inverse, weighed
        # C⁻¹ loses p u uᵀ, B loses u vᵀ + v uᵀ
        self.p = inverse.new_zeros(count)
        self.u = inverse.new_zeros(count, len(inverse))
        self.v = inverse.new_zeros(count, len(inverse))

    def run(self) -> tuple[Tensor, Tensor]:
        """Return the removed inputs in order, and the cost of each; both are (count,)."""
        variances, numerators = self.inverse.diagonal().clone(), self.weighed.diagonal().clone()
        removed, costs = [], []
        for t in range(len(self.p)):
            scores = numerators.clamp_min(0) / variances
            j = int(scores.argmin())
            removed.append(j)
            costs.append(scores[j] / 2)
            p, u, v = self.p[:t], self.u[:t], self.v[:t]
            # one product for both, since reading u takes the time
            inverse_update, weighed_update = torch.stack([p * u[:, j], v[:, j]]) @ u
            column = self.inverse[j] - inverse_update
            weighed = self.weighed[j] - weighed_update - u[:, j] @ v
            self.p[t] = column[j]
            self.u[t] = column / column[j]
            self.v[t] = weighed - weighed[j] / 2 * self.u[t]
            variances -= self.p[t] * self.u[t].square()
            numerators -= 2 * self.u[t] * self.v[t]
            # a removed input must never be the cheapest again
            variances[removed], numerators[removed] = 1.0, torch.inf
        return torch.tensor(removed, device=self.p.device), torch.stack(costs)

    def apply(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Return C⁻¹ and B of the inputs that the boolean mask `kept` selects, after all removals of the block."""
        u, v = self.u[:, kept], self.v[:, kept]
        inverse, weighed = (matrix[kept][:, kept] for matrix in (self.inverse, self.weighed))
        inverse.addmm_((self.p[:, None] * u).T, u, alpha=-1)
        weighed.addmm_(torch.cat([u, v]).T, torch.cat([v, u]), alpha=-1)
        return inverse, weighed


def compensate_for_removed(weight: Tensor, covariance: Tensor, mean: Tensor, kept: Tensor) -> CompensatedWeight:
    """Return the weight of the kept inputs that best reproduces the output: its linear regression on these inputs.

    Args:
        weight: (out, n), any float dtype; computed in float64, returned in its dtype.
        covariance: (n, n) covariance of the inputs, positive definite, float64.
        mean: (n,) mean of the inputs, float64.
        kept: (kept,) indices of the kept inputs; or (kept, n) float64 Q, if the layer reads Qx instead of x.
    """
    dense = weight.double()

    def select(tensor: Tensor) -> Tensor:
        return kept @ tensor if kept.is_floating_point() else tensor[kept]

    cross = select(covariance)
    regression = torch.cholesky_solve(cross @ dense.T, torch.linalg.cholesky(select(cross.T))).T
    return CompensatedWeight(regression.to(weight), (dense @ mean - regression @ select(mean)).to(weight))
