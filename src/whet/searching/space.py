"""The structures that a search can try: how much of the blocks and of the word embeddings is kept, and a recovery.

Each axis is a level in a short list, from everything to little. `sampler` decides which structures are tried.
"""

from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, NamedTuple, Self

from annotated_types import Interval
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
"""Speedups of the model, or, where only bytes count, compression ratios of its blocks."""
TABLES = (1.0, 0.5, 0.25)
"""Shares of the word embeddings' parameters that are kept."""
RECOVERY = (0, 1)
"""Epochs of distillation."""
WITHOUT_HEADS = ("neurons", "ranks", "drop")
"""What can become of the parts of blocks where no heads can be removed. Where heads can be, low rank is not offered: it
costs more than is predicted of it (studies/frontier)."""


class Structure(NamedTuple):
    """Levels; 0 leaves everything as it is."""

    blocks: Annotated[int, Interval(ge=0, lt=len(LESS))] = 0
    table: Annotated[int, Interval(ge=0, lt=len(TABLES))] = 0
    recovery: Annotated[int, Interval(ge=0, lt=len(RECOVERY))] = 0


@dataclass(frozen=True)
class Space:
    """The axes that a model allows, and how it recovers."""

    blocks: bool = True
    """Whether its blocks can become smaller."""
    heads: bool = True
    """Whether attention heads can be removed; where not, attention may become low rank."""
    table: bool = False
    """Whether its word embeddings can become smaller, and bytes count."""
    first_token: bool = True
    """Whether its head reads the first token alone, so that the last block need not compute the others."""
    recovery: float = 0.0
    """Share of the training text that a recovery takes; 0 if there is no time for one."""
    precision: ComputePrecision = "fp32"
    """Precision of the matrix products of a recovery."""

    @classmethod
    def of(cls, model: nn.Module, resources: Resources, *, recovery: float, bytes_count: bool) -> Self:
        """Return the space of a model, found by trying each method at no compression.

        Args:
            model: the baseline.
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

        # (keep=1 finds the layers, and changes nothing)
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
        """The highest level of each axis."""
        return Structure(
            (len(LESS) - 1) * self.blocks,
            (len(TABLES) - 1) * self.table,
            (len(RECOVERY) - 1) * (self.recovery > 0),
        )

    def every(self) -> list[Structure]:
        """Return all structures."""
        return [Structure(*levels) for levels in product(*(range(level + 1) for level in self.most))]

    def recipe(self, structure: Structure, timed: Target | None) -> Recipe:
        """Return the recipe that makes a structure.

        Args:
            structure: its levels.
            timed: the target in which time counts; None if only bytes count.
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
        """Return the name of a structure in tables."""
        parts = [f"structure {LESS[structure.blocks]:g}"] * bool(structure.blocks)
        parts += [f"embedding {TABLES[structure.table]:g}"] * bool(structure.table)
        parts += ["recovered"] * bool(structure.recovery)
        return ", ".join(parts) or "all kept"
