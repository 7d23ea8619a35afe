"""The structures that a search can try: how many neurons and heads stay, low rank on attention, a short recovery.

Each is a level in four short lists, from everything to little. Known to be good together are few neurons and not quite
as few heads: a path from the original to very little, on which quality falls and speed rises. Where it crosses the bar
is found by bisection, which takes three or four structures; then come the neighbours of the best. What lies further off
is left to the sampler.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, Self

from torch import nn

from whet.architecture import Architecture
from whet.errors import InvalidModel, NothingToCompress
from whet.method import method_from
from whet.recipe import Recipe
from whet.resources import Resources
from whet.surgery import copy_model

__all__ = ["Space", "Structure"]

NEURONS = (1.0, 0.75, 0.5, 0.4, 0.33, 0.25, 0.2, 0.15, 0.1)
HEADS = (1.0, 0.83, 0.67, 0.5, 0.33)
LOW_RANK = (1.0, 0.75, 0.5)
RECOVERY = (0, 1)
PATH = ((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3), (8, 4))
"""Levels of neurons and heads, from the original to very little; the middle is the recipe `structured`."""
STEPS = ((1, 0), (0, 1), (2, -1), (-1, 1))
"""Levels of neurons and heads from the best structure to what may be better still."""
ATTENTION = "*att*"
"""Wildcard over the linear layers of attention, as families call them."""


class Structure(NamedTuple):
    """Levels; 0 leaves everything as it is."""

    neurons: int = 0
    heads: int = 0
    low_rank: int = 0
    recovery: int = 0


@dataclass(frozen=True)
class Space:
    """What a model can lose, and how it recovers."""

    neurons: bool = True
    """Whether it has any that can go."""
    heads: bool = True
    """Whether it has any that can go."""
    low_rank: bool = True
    """Whether its attention can be factored."""
    first_token: bool = True
    """Whether its head reads the first token alone, so that all structures leave out the others' last block."""
    recovery: float = 0.0
    """Share of the training text that a recovery takes; 0 where there is no time for any."""

    @classmethod
    def of(cls, model: nn.Module, resources: Resources, *, recovery: float) -> Self:
        """Return what can be done to a model, by trying what costs little.

        Args:
            model: the original.
            resources: calibration data.
            recovery: share of the training text.
        """

        def possible(**entry: Any) -> bool:
            try:
                method = method_from(entry)
                method.apply(copy_model(model), resources.only(method.reads))
            except (NothingToCompress, InvalidModel):
                return False
            return True

        # (keep=1 looks for places and does nothing to them)
        return cls(
            neurons=possible(method="pruning.neurons", keep=1.0),
            heads=possible(method="pruning.heads", keep=1.0),
            low_rank=any("att" in name for name in Architecture.of(model).linears),
            first_token=possible(method="lossless.first_token"),
            recovery=recovery,
        )

    @property
    def most(self) -> Structure:
        """The highest level of each."""
        return Structure(
            (len(NEURONS) - 1) * self.neurons,
            (len(HEADS) - 1) * self.heads,
            (len(LOW_RANK) - 1) * self.low_rank,
            (len(RECOVERY) - 1) * (self.recovery > 0),
        )

    def every(self) -> list[Structure]:
        """Return all structures."""
        levels = product(*(range(level + 1) for level in self.most))
        return list(dict.fromkeys(self.nearest(Structure(*one)) for one in levels))

    @staticmethod
    def nearest(structure: Structure) -> Structure:
        """Return a structure that can be made: attention loses heads or rank, and not both."""
        return structure._replace(low_rank=0) if structure.heads else structure

    def recipe(self, structure: Structure) -> Recipe:
        """Return how a structure is made."""
        entries: list[dict[str, Any]] = []
        if structure.neurons:
            entries.append({"method": "pruning.neurons", "keep": NEURONS[structure.neurons]})
        if structure.heads:
            entries.append({"method": "pruning.heads", "keep": HEADS[structure.heads]})
        if structure.low_rank:
            keep = LOW_RANK[structure.low_rank]
            entries.append({"method": "factorization.kfac", "keep": keep, "include": ATTENTION})
        if self.first_token:
            entries.append({"method": "lossless.first_token"})
        if structure.recovery:
            epochs = RECOVERY[structure.recovery]
            entries.append({"method": "recovery.distillation", "epochs": epochs, "share": self.recovery})
        return Recipe.from_list(entries)

    def name(self, structure: Structure) -> str:
        """Return what tables call a structure."""
        kept = {
            "neurons": NEURONS[structure.neurons],
            "heads": HEADS[structure.heads],
            "low rank": LOW_RANK[structure.low_rank],
        }
        parts = [f"{what} {keep:g}" for what, keep in kept.items() if keep < 1]
        parts += ["recovered"] * bool(structure.recovery)
        return ", ".join(parts) or "all kept"

    def promising(self, values: Mapping[Structure, float]) -> Structure | None:
        """Return what to try next by what is known already, or None where that does not tell.

        Args:
            values: what came of each structure that was tried: its score if it holds the bar, else no more than 0.
        """
        path = self._path()
        known = {i: values[one] > 0 for i, one in enumerate(path) if one in values}
        if 0 not in known:
            return path[0]
        good = max((i for i, held in known.items() if held), default=-1)
        bad = min((i for i, held in known.items() if not held and i > good), default=len(path))
        if bad - good > 1:
            return path[(good + bad + 1) // 2]
        recovered = [one._replace(recovery=self.most.recovery) for one in path[bad:]]
        first = next((one for one in recovered if values.get(one, 0) <= 0), None)
        if self.recovery and first is not None and first not in values:
            return first
        best = max((one for one in values if values[one] > 0), key=values.__getitem__, default=None)
        return None if best is None else next((one for one in self._around(best) if one not in values), None)

    def _around(self, best: Structure) -> list[Structure]:
        """What a little less is left in, or less of one and more of the other; with a recovery too."""
        found = []
        for recovery in dict.fromkeys((best.recovery, self.most.recovery)):
            for neurons, heads in STEPS:
                one = Structure(best.neurons + neurons, best.heads + heads, 0, recovery)
                if all(0 <= level <= most for level, most in zip(one, self.most, strict=True)):
                    found.append(one)
        return found

    def _path(self) -> list[Structure]:
        most = self.most
        return list(dict.fromkeys(Structure(min(n, most.neurons), min(h, most.heads)) for n, h in PATH))
