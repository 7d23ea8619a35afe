"""Pruning with compensation: when a weight is removed, the weights to its right correct the outputs.

Columns are pruned from left to right. Let H = E[x xᵀ] over calibration inputs, and let F be column j and the columns to
its right. Setting w_j to zero and adjusting the other weights of F costs at least w_j² / [H_F⁻¹]_jj, and the update w_F
← w_F − w_j [H_F⁻¹]_j: / [H_F⁻¹]_jj reaches this minimum. One root gives all these inverses: if H⁻¹ = UᵀU with U upper
triangular, then [H_F⁻¹]_j: / [H_F⁻¹]_jj = U_j: / U_jj and [H_F⁻¹]_jj = U_jj². The cost is the score of a weight; scores
are compared within 128 columns, or within the M columns of a pattern.

Source: Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023, arXiv
2301.00774, Algorithm 1.
Differs: padding tokens are left out; the root comes from a QR decomposition in float64, which is stable for
rank-deficient inputs. As in the publication, the inputs of a block come from the pruned blocks before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.errors import InvalidParameter
from whet.methods.pruning._base import Pruning, check_groups, keep_masks, parse_pattern
from whet.models.architecture import Architecture, dense_weight
from whet.numerics.linalg import root_and_inverse
from whet.numerics.moments import Side
from whet.utils.progress import track

__all__ = ["SparseGpt", "prune_and_compensate"]

COLUMNS = 128
"""Columns that are pruned as one block; the columns to the right of a block are updated once for the whole block."""


@dataclass(frozen=True, kw_only=True)
class SparseGpt(Pruning):
    """Set the weights of least cost to zero, and adjust the remaining weights of each output to compensate."""

    damping: Annotated[float, Interval(gt=0, le=1)] = 0.01
    """Damping added to the diagonal of the inputs' second moment H, as a fraction of its mean, e.g. 0.01."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: a parameter is outside its range, or the scope is global.
        """
        super().__post_init__()
        if self.scope == "global":
            raise InvalidParameter(
                "scope must be layer, since each layer is pruned and compensated in turn, but got scope=global; "
                "leave scope out"
            )

    def pruned(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `Pruning.pruned`; one forward pass per block."""
        group = COLUMNS
        if self.pattern is not None:
            group = parse_pattern(self.pattern).size
            for name in layers:
                check_groups(dense_weight(model.get_submodule(name)).shape[1], group, name)

        def choose_mask(scores: Tensor) -> Tensor:
            return keep_masks({"": scores}, sparsity=self.sparsity, pattern=self.pattern, scope="layer")[""]

        for block_layers in track(_by_block(model, layers), "pruning blocks"):
            moments = collect_moments(
                model, require_calibration(resources), block_layers, sides=dict.fromkeys(block_layers, Side.INPUT)
            )
            for name in block_layers:
                weight = dense_weight(model.get_submodule(name))
                yield (
                    name,
                    prune_and_compensate(weight, moments[name].second, choose_mask, group=group, damping=self.damping),
                )


def prune_and_compensate(
    weight: Tensor, moment: Tensor, choose: Callable[[Tensor], Tensor], *, group: int, damping: float
) -> Tensor:
    """Return the pruned weight, (out, in), whose remaining weights are adjusted so that the outputs change least.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        moment: E[x xᵀ], (in, in), symmetric positive semi-definite.
        choose: takes scores, (out, group), and returns a bool mask of the same shape, true where a weight is kept.
        group: columns within which scores are compared; the last group may be smaller.
        damping: number added to the diagonal of `moment`, as a fraction of its mean.

    Returns:
        The weight in the dtype of `weight`.
    """
    # any root R of H, H = R Rᵀ, gives U: H⁻¹ = R⁻ᵀ R⁻¹ = (QU)ᵀ (QU)
    upper = torch.linalg.qr(root_and_inverse(moment.double(), damping=damping).inverse).R
    new = weight.double().clone()
    width = max(1, COLUMNS // group) * group
    for start in range(0, new.shape[1], width):
        block = slice(start, start + width)
        errors = _prune_block(new[:, block], upper[block, block], choose, group)
        new[:, start + width :] -= errors @ upper[block, start + width :]
    return new.to(weight)


def _prune_block(new: Tensor, upper: Tensor, choose: Callable[[Tensor], Tensor], group: int) -> Tensor:
    """Prune the columns of a block in place; return their errors, (out, columns), for columns further right."""
    errors = torch.zeros_like(new)
    mask = torch.ones_like(new, dtype=torch.bool)
    pivots = upper.diagonal()
    for j in range(new.shape[1]):
        if j % group == 0:
            ahead = slice(j, j + group)
            mask[:, ahead] = choose(new[:, ahead].square() / pivots[ahead].square())
        errors[:, j] = new[:, j].masked_fill(mask[:, j], 0) / pivots[j]
        new[:, j:] -= errors[:, j, None] * upper[j, j:]
        new[:, j].masked_fill_(~mask[:, j], 0)  # the update above reaches zero only up to rounding
    return errors


def _by_block(model: nn.Module, layers: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the layers of each block, then the layers outside all blocks; without empty groups."""
    blocks = Architecture.of(model).blocks
    within = [tuple(name for name in layers if name.startswith(f"{block}.")) for block in blocks]
    rest = tuple(name for name in layers if not any(name in group for group in within))
    return [group for group in (*within, rest) if group]
