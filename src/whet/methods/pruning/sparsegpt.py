"""Pruning with compensation: what a weight's removal does to the outputs, the weights to its right make good.

Columns go from left to right. With H = E[x xᵀ] over calibration inputs, setting w_j to zero and moving the weights F to
the right of it, those to the left being fixed, costs at least w_j² / [H_F⁻¹]_jj, where F counts j itself, and that is
reached by w_F ← w_F − w_j [H_F⁻¹]_j: / [H_F⁻¹]_jj. All these inverses are read off one root: if H⁻¹ = UᵀU with U upper
triangular, [H_F⁻¹]_j: / [H_F⁻¹]_jj = U_j: / U_jj and [H_F⁻¹]_jj = U_jj². The cost is the score by which weights are
chosen, of 128 columns at once or of the M of a pattern.

Source: Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023, arXiv
2301.00774, Algorithm 1.
Differs: padding tokens are left out; the root comes from a QR decomposition, in float64, which no rank deficiency
upsets. As in the publication, the inputs of a block are those that the pruned blocks before it give.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.errors import InvalidParameter
from whet.methods.pruning._base import Pruning, check_groups, group_of, kept
from whet.models.architecture import Architecture, dense_weight
from whet.numerics.linalg import roots
from whet.numerics.moments import Side
from whet.utils.progress import track

__all__ = ["SparseGpt", "compensated"]

COLUMNS = 128
"""Columns whose weights are chosen at once; their effect on all others is written once for all of them."""


@dataclass(frozen=True, kw_only=True)
class SparseGpt(Pruning):
    """Remove weights by what their removal costs, and let the others of their output make up for it."""

    damping: Annotated[float, Interval(gt=0, le=1)] = 0.01
    """Share of the mean of H's diagonal that is added to it."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range, or a scope beyond the layer."""
        super().__post_init__()
        if self.scope == "global":
            raise InvalidParameter(
                "scope must be layer, since each layer is pruned and compensated in turn, but got scope=global; "
                "leave it out"
            )

    def pruned(self, model: nn.Module, layers: tuple[str, ...], resources: Resources) -> Iterator[tuple[str, Tensor]]:
        """See `Pruning.pruned`; one forward pass for every block."""
        group = COLUMNS
        if self.pattern is not None:
            group = group_of(self.pattern).size
            for name in layers:
                check_groups(dense_weight(model.get_submodule(name)).shape[1], group, name)

        def choose(scores: Tensor) -> Tensor:
            return kept({"": scores}, sparsity=self.sparsity, pattern=self.pattern, scope="layer")[""]

        for own in track(_by_block(model, layers), "pruning blocks"):
            moments = collect(model, calibrated(resources), own, sides=dict.fromkeys(own, Side.INPUT))
            for name in own:
                weight = dense_weight(model.get_submodule(name))
                yield name, compensated(weight, moments[name].second, choose, group=group, damping=self.damping)


def compensated(
    weight: Tensor, moment: Tensor, choose: Callable[[Tensor], Tensor], *, group: int, damping: float
) -> Tensor:
    """Return the weights, (out, in), some of them zero and the others moved so that outputs change less.

    Args:
        weight: (out, in), any float dtype; computed in float64.
        moment: E[x xᵀ], (in, in), symmetric positive semi-definite.
        choose: from scores, (out, group), to which weights stay, of the same shape.
        group: columns among which it chooses; fewer come last where they do not divide all.
        damping: share of the mean of the moment's diagonal that is added to it.
    """
    # any root R of H gives U: H⁻¹ = R⁻ᵀ R⁻¹ = (QU)ᵀ (QU)
    upper = torch.linalg.qr(roots(moment.double(), damping=damping).inverse).R
    new = weight.double().clone()
    width = max(1, COLUMNS // group) * group
    for start in range(0, new.shape[1], width):
        block = slice(start, start + width)
        errors = _within(new[:, block], upper[block, block], choose, group)
        new[:, start + width :] -= errors @ upper[block, start + width :]
    return new.to(weight)


def _within(new: Tensor, upper: Tensor, choose: Callable[[Tensor], Tensor], group: int) -> Tensor:
    """Prune these columns in place, and return what of each is still to be made good further right, (out, columns)."""
    errors = torch.zeros_like(new)
    stays = torch.ones_like(new, dtype=torch.bool)
    pivots = upper.diagonal()
    for j in range(new.shape[1]):
        if j % group == 0:
            ahead = slice(j, j + group)
            stays[:, ahead] = choose(new[:, ahead].square() / pivots[ahead].square())
        errors[:, j] = new[:, j].masked_fill(stays[:, j], 0) / pivots[j]
        new[:, j:] -= errors[:, j, None] * upper[j, j:]
        new[:, j].masked_fill_(~stays[:, j], 0)  # which rounding may have missed
    return errors


def _by_block(model: nn.Module, layers: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The layers of each block, and those after all blocks."""
    blocks = Architecture.of(model).blocks
    within = [tuple(name for name in layers if name.startswith(f"{block}.")) for block in blocks]
    rest = tuple(name for name in layers if not any(name in own for own in within))
    return [own for own in (*within, rest) if own]
