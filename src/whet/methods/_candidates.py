"""A layer that may be factorised: its decomposition, the ranks on offer, and the cost and loss of each."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Self

import numpy as np
from torch import Tensor, nn

from whet.errors import InvalidParameter, NothingToCompress
from whet.models.architecture import dense_bias, dense_weight
from whet.models.layers.low_rank import LowRank
from whet.numerics.allocation import LayerOptions
from whet.numerics.low_rank import Spectrum, break_even, factors_at_rank

__all__ = ["Candidate", "Offer", "accepted_ranks", "planned_ranks", "timed_ranks"]

GRID = 48
"""Number of ranks on offer per layer: enough that the best rank is near, few enough to search."""
TIMED = 24
"""Number of ranks of a square layer to time."""
ACCEPTED = 6
"""Number of ranks that Algorithm 2 tries in each layer."""


class Offer(NamedTuple):
    """The ranks that one layer can take under a budget of parameters."""

    ranks: list[int | None]
    """Ascending; the last, None, is the dense layer."""
    options: LayerOptions
    """Their parameters and losses."""


class Candidate(NamedTuple):
    """A dense layer and its decomposition."""

    weight: Tensor
    """(out, in)."""
    bias: Tensor | None
    """(out,)."""
    spectrum: Spectrum
    """The components up to the break-even rank, in the weight's dtype, since all layers hold theirs at once."""

    @classmethod
    def of(cls, layer: nn.Module, spectrum: Spectrum) -> Self:
        """Return the candidate for a dense layer."""
        weight = dense_weight(layer)
        ranks = break_even(weight)
        short = spectrum._replace(p=spectrum.p[:, :ranks].to(weight), q=spectrum.q[:ranks].to(weight))
        return cls(weight, dense_bias(layer), short)

    def layer(self, rank: int) -> LowRank:
        """Return the two factors of that rank as a layer."""
        u, v, shift = factors_at_rank(self.weight, self.spectrum, rank)
        bias = self.bias
        if shift is not None:
            bias = shift if bias is None else bias + shift
        return LowRank.of(u, v, bias)

    def losses(self, ranks: Sequence[int]) -> dict[int, float]:
        """Return the loss at each rank."""
        return {rank: float(self.spectrum.losses[rank]) for rank in ranks}

    def offer(self) -> Offer:
        """Return multiples of a step with fewer parameters than the dense layer, and the dense layer itself."""
        sides, whole = sum(self.weight.shape), self.weight.numel()
        step = max(1, min(self.weight.shape) // GRID)
        # correcting the mean adds a bias to a layer that has none
        bias = 0 if self.bias is not None or self.spectrum.mean is None else self.weight.shape[0]
        fewer = [rank for rank in range(1, break_even(self.weight) + 1) if rank * sides + bias < whole]
        ranks = [rank for rank in fewer if rank % step == 0] or fewer[:1]
        costs = [rank * sides + bias for rank in ranks] + [whole]
        losses = [*self.losses(ranks).values(), 0.0]
        return Offer([*ranks, None], LayerOptions(np.asarray(costs, dtype=float), np.asarray(losses)))


def timed_ranks(weight: Tensor) -> list[int]:
    """Return the ranks of a layer (out, in) to time: multiples of a step below break-even."""
    step = max(1, min(weight.shape) // TIMED)
    return [rank for rank in range(step, break_even(weight) + 1, step) if rank * sum(weight.shape) < weight.numel()]


def accepted_ranks(weight: Tensor) -> list[int]:
    """Return the ascending grid of Algorithm 2 for a layer (out, in), evenly up to below break-even."""
    limit = break_even(weight)
    grid = {round(limit * i / (ACCEPTED + 1)) for i in range(1, ACCEPTED + 1)}
    return sorted(rank for rank in grid if rank > 0)


def planned_ranks(model: nn.Module, names: Sequence[str], plan: Mapping[str, int | float]) -> dict[str, int]:
    """Return the rank of every layer that the plan names; the first wildcard that matches counts.

    Args:
        model: the model with the layers.
        names: names of the dense layers.
        plan: maps a wildcard over names to a rank, or to a fraction below 1 of the layer's narrower side.

    Raises:
        NothingToCompress: a wildcard matches no layer, or only layers that an earlier wildcard matches.
        InvalidParameter: a rank is below 1, or two factors of that rank hold more than the dense layer.
    """
    if not plan:
        raise InvalidParameter("ranks must name at least one layer, but got none; such as {'*.query': 96}")
    for pattern, given in plan.items():
        if not isinstance(given, int | float):
            raise InvalidParameter(f"ranks must hold numbers, but got {pattern!r}: {given!r}; give ranks or shares")
    ranks: dict[str, int] = {}
    for pattern, given in plan.items():
        matching = [name for name in names if fnmatchcase(name, pattern) and name not in ranks]
        if not matching:
            raise NothingToCompress(
                f"every wildcard of ranks must match a layer, but got {pattern!r}; the linear layers here are "
                f"{', '.join(names[:6])}, ..."
            )
        for name in matching:
            ranks[name] = _planned(dense_weight(model.get_submodule(name)), given, name)
    return {name: ranks[name] for name in names if name in ranks}


def _planned(weight: Tensor, given: float, name: str) -> int:
    share = isinstance(given, float) and given < 1
    rank = round(given * min(weight.shape)) if share else given
    limit = break_even(weight)
    if isinstance(given, bool) or rank != int(rank) or not 1 <= rank <= limit:
        shape = "x".join(map(str, weight.shape))
        raise InvalidParameter(
            f"1 <= rank <= {limit} must hold for {name} ({shape}), where two factors hold no more than the dense "
            f"layer, but got {given}; give less (whet inspect measures up to which rank they are faster "
            "here), or leave the layer out of the plan"
        )
    return int(rank)
