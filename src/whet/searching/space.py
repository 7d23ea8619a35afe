"""The structures that a search can try: less and less of the blocks, of the word embeddings, and a short recovery.

Each is a level in a short list, from everything to little. Which structures a search tries, and in which order, says
`sampler`.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, Self

from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidModel, NothingToCompress
from whet.methods.base import method_from
from whet.methods.recipe import Recipe
from whet.models.surgery import copy_sharing_parameters
from whet.searching.targets import Target
from whet.utils.hardware import supports_products
from whet.utils.precision import ComputePrecision

__all__ = ["LESS", "TABLES", "Space", "Structure"]

LESS = (1.0, 1.2, 1.35, 1.5, 1.7, 1.9, 2.15, 2.4, 2.7, 3.0, 3.5, 4.0, 5.0, 6.0)
"""How many times as fast a model is to be, or, where bytes count, how many times as small its blocks."""
TABLES = (1.0, 0.5, 0.25)
"""Shares of the word embeddings that are kept."""
RECOVERY = (0, 1)
"""Epochs."""
WITHOUT_HEADS = ("neurons", "ranks", "nothing")
"""What parts of blocks become where no heads can go. Beside those, low rank costs more than it promises
(studies/frontier), so that it is not offered then."""


class Structure(NamedTuple):
    """Levels; 0 leaves everything as it is."""

    blocks: int = 0
    table: int = 0
    recovery: int = 0


@dataclass(frozen=True)
class Space:
    """What a model can lose, and how it recovers."""

    blocks: bool = True
    """Whether its blocks can become smaller."""
    heads: bool = True
    """Whether heads can go; where not, attention is offered low rank."""
    table: bool = False
    """Whether its word embeddings can, and bytes count."""
    first_token: bool = True
    """Whether its head reads the first token alone, so that all structures leave out the others' last block."""
    recovery: float = 0.0
    """Share of the training text that a recovery takes; 0 where there is no time for any."""
    precision: ComputePrecision = "fp32"
    """Of the products of a recovery."""

    @classmethod
    def of(cls, model: nn.Module, resources: Resources, *, recovery: float, bytes_count: bool) -> Self:
        """Return what can be done to a model, by trying what costs little.

        Args:
            model: the original.
            resources: calibration and training data.
            recovery: share of the training text.
            bytes_count: whether a smaller file is worth anything.
        """

        def possible(**entry: Any) -> bool:
            try:
                method = method_from(entry)
                method.apply(copy_sharing_parameters(model), resources.only(method.reads))
            except (NothingToCompress, InvalidModel):
                return False
            return True

        # (keep=1 looks for places and does nothing to them)
        return cls(
            blocks=possible(method="pruning.structure", keep=1.0),
            heads=possible(method="pruning.heads", keep=1.0),
            table=bytes_count and possible(method="factorization.embedding", keep=1.0),
            first_token=possible(method="lossless.first_token"),
            recovery=recovery,
            precision="bf16" if supports_products("bf16") else "fp32",
        )

    @property
    def most(self) -> Structure:
        """The highest level of each."""
        return Structure(
            (len(LESS) - 1) * self.blocks,
            (len(TABLES) - 1) * self.table,
            (len(RECOVERY) - 1) * (self.recovery > 0),
        )

    def every(self) -> list[Structure]:
        """Return all structures."""
        return [Structure(*levels) for levels in product(*(range(level + 1) for level in self.most))]

    def recipe(self, structure: Structure, timed: Target | None) -> Recipe:
        """Return how a structure is made.

        Args:
            structure: its levels.
            timed: where time counts; None where bytes alone do.
        """
        entries: list[dict[str, Any]] = [{"method": "lossless.first_token"}] * self.first_token
        if structure.blocks:
            less = LESS[structure.blocks]
            budget = {"keep": 1 / less} if timed is None else {"speedup": less, **timed._asdict()}
            structures = {} if self.heads else {"structures": WITHOUT_HEADS}
            entries.append({"method": "pruning.structure", **budget, **structures})
        if structure.table:
            entries.append({"method": "factorization.embedding", "keep": TABLES[structure.table]})
        if structure.recovery:
            epochs = RECOVERY[structure.recovery]
            how = {"epochs": epochs, "share": self.recovery, "precision": self.precision}
            entries.append({"method": "recovery.distillation", **how})
        return Recipe.from_list(entries)

    def name(self, structure: Structure) -> str:
        """Return what tables call a structure."""
        parts = [f"structure {LESS[structure.blocks]:g}"] * bool(structure.blocks)
        parts += [f"embedding {TABLES[structure.table]:g}"] * bool(structure.table)
        parts += ["recovered"] * bool(structure.recovery)
        return ", ".join(parts) or "all kept"
