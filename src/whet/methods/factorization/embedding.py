"""The table of word embeddings as a thinner one and a linear layer, fitted to the words that the text has.

E ≈ A B, with A (words, rank) and B (rank, width). A word that is read often counts more, and so does a direction that
the answers depend on: minimised is Σ_i (n_i + s) ΔE_i (G + λ I) ΔE_iᵀ, with n_i how often training text has token i,
s so that one it lacks counts too, G the second moment of the gradient that reaches the embeddings, and λ its damping.
With R Rᵀ = G + λ I and V the leading eigenvectors of Σ_i (n_i + s) (E_i R)ᵀ E_i R, the optimum is A = E R V and
B = Vᵀ R⁻¹; no root of a frequency is ever divided by. A row of zeros, such as that of padding, stays one.

Source: Chen, Si, Li, Chelba, Hsieh, "GroupReduce: Block-Wise Low-Rank Approximation for Neural Language Model
Shrinking", NeurIPS 2018, arXiv 1806.06950, for weights by frequency; Martens, Grosse, "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", ICML 2015, arXiv 1503.05671, for those by gradient.
Differs: one block; frequencies are those of the user's own text; the damping is strong, as held-out training data of
two tasks ask for: the gradient alone tells too little of the words that calibration lacks.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.importance import token_counts
from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.errors import InvalidParameter, MissingResource
from whet.methods.base import Method, Stage
from whet.models.architecture import word_vectors
from whet.models.embeddings import own_table
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.surgery import replace
from whet.numerics.linalg import Roots, eigh_descending, roots
from whet.numerics.moments import Side

__all__ = ["Embedding", "weighted_factors"]

ROWS = 4096
"""Words whose products are computed at once in float64."""
TEMPERATURE = 3.0
"""Softens the predictions that gradients start from; see `factorization.kfac`."""


class Factors(NamedTuple):
    """E ≈ table @ projection."""

    table: Tensor
    """(words, rank)."""
    projection: Tensor
    """(rank, width)."""


def weighted_factors(vectors: Tensor, weights: Tensor, metric: Roots, rank: int) -> Factors:
    """Return the factors that minimise the sum of squared errors of the rows, each times its weight, in a metric.

    Args:
        vectors: (words, width), any float dtype; sums are in float64.
        weights: (words,), not negative; those of weight 0 are projected as the others are.
        metric: roots of what errors are measured by, (width, width) float64.
        rank: 1 ... width.
    """
    moment = torch.zeros_like(metric.root)
    for rows, own in zip(vectors.split(ROWS), weights.to(moment).split(ROWS), strict=True):
        seen = rows.double() @ metric.root
        moment += (seen * own[:, None]).T @ seen
    directions = eigh_descending(moment).vectors[:, :rank]
    table = vectors @ (metric.root @ directions).to(vectors)
    return Factors(table, (directions.T @ metric.inverse).to(vectors))


@dataclass(frozen=True, kw_only=True)
class Embedding(Method):
    """Factorise the word embeddings, weighed by how often text has each word and by what the answers depend on."""

    keep: Annotated[float, Interval(gt=0, le=1)]
    """Share of the word embeddings' parameters that is kept, such as 0.25."""
    smoothing: Annotated[float, Interval(ge=0)] = 1.0
    """Added to how often training text has each token; the larger, the more alike all tokens count."""
    damping: Annotated[float, Interval(gt=0)] = 5.0
    """Added to the gradient moment, as a share of its mean eigenvalue; the larger, the more alike all directions
    count."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "train"})
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; what is low rank already gets a lower one.

        Raises:
            NothingToCompress: the table is no ordinary one, or other modules use its weights too.
            InvalidParameter: less than one component would be left.
        """
        if resources.train is None:
            raise MissingResource("training data must be given, but got none; give --task")
        table = own_table(model)
        if self.keep == 1:
            return model
        vectors = word_vectors(model)
        held = sum(weight.numel() for weight in model.get_submodule(table.place).parameters())
        rank = int(self.keep * held / sum(vectors.shape))
        if rank < 1:
            raise InvalidParameter(
                f"keep must leave a component of the {held} embedding parameters, but got keep={self.keep:g}; keep "
                f"{sum(vectors.shape) / held:.2g} or more"
            )
        weights = token_counts(resources.train, len(vectors)) + self.smoothing
        found = weighted_factors(vectors, weights, self._metric(model, table.place, resources), rank)
        replace(model, table.place, LowRankEmbedding.of(*found, table.embedding.padding_idx))
        return model

    def _metric(self, model: nn.Module, place: str, resources: Resources) -> Roots:
        """What an error of a word costs in KL, to second order; one pass forward and backward."""
        batches, sides = calibrated(resources), {place: Side.OUTPUT}
        moments = collect(model, batches, [place], seed=resources.seed, temperature=TEMPERATURE, sides=sides)[place]
        assert moments.gradient is not None
        return roots(moments.gradient, damping=self.damping)
