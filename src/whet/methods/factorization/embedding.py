"""Low-rank word embeddings: a thinner table and a linear layer, fitted to the tokens of the training text.

E ≈ A B, with A (words, rank) and B (rank, width). Frequent tokens and directions that the predictions depend on count
more: the method minimises Σ_i (n_i + s) ΔE_i (G + λ I) ΔE_iᵀ, where n_i is the count of token i in the training text, s
is a smoothing that makes unseen tokens count too, G is the second moment of the gradient at the embeddings, and λ is
its damping. With R Rᵀ = G + λ I and V the leading eigenvectors of Σ_i (n_i + s) (E_i R)ᵀ E_i R, the optimum is A = E R
V and B = Vᵀ R⁻¹; it never divides by the root of a frequency. A row of zeros, such as that of padding, stays zero.

Source: Chen, Si, Li, Chelba, Hsieh, "GroupReduce: Block-Wise Low-Rank Approximation for Neural Language Model
Shrinking", NeurIPS 2018, arXiv 1806.06950, for weights by frequency; Martens, Grosse, "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", ICML 2015, arXiv 1503.05671, for weights by gradient.
Differs: all words form one block; frequencies come from the user's own text; the damping is strong, chosen on held-out
training data of two tasks, because the gradient alone says too little about words that the calibration data lacks.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.importance import token_counts
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.errors import InvalidParameter, MissingResource
from whet.methods._share import KeepsShare
from whet.models.embeddings import TokenTable, token_table, word_vectors
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.surgery import replace_module
from whet.numerics.linalg import RootAndInverse, eigh_descending, root_and_inverse
from whet.numerics.moments import Side
from whet.utils.ranges import Damping, Keep

__all__ = ["Embedding", "weighted_factors"]

ROWS = 4096
"""Rows of the table whose products are computed at once in float64."""
TEMPERATURE = 3.0
"""Temperature that softens the predictions before gradients are taken; see `factorization.kfac`."""


class EmbeddingFactors(NamedTuple):
    """E ≈ table @ projection."""

    table: Tensor
    """(words, rank)."""
    projection: Tensor
    """(rank, width)."""


def weighted_factors(vectors: Tensor, weights: Tensor, metric: RootAndInverse, rank: int) -> EmbeddingFactors:
    """Return the factors that minimise the weighted sum of the rows' squared errors in a metric.

    Args:
        vectors: (words, width), the table, in any float dtype; sums are in float64.
        weights: (words,), the weight of each row, at least 0; rows of weight 0 are projected like the others.
        metric: roots of the metric in which errors are measured, (width, width) float64.
        rank: 1 ... width.

    Returns:
        Factors in the dtype of `vectors`.
    """
    moment = torch.zeros_like(metric.root)
    for rows, row_weights in zip(vectors.split(ROWS), weights.to(moment).split(ROWS), strict=True):
        in_metric = rows.double() @ metric.root
        moment += (in_metric * row_weights[:, None]).T @ in_metric
    directions = eigh_descending(moment).vectors[:, :rank]
    table = vectors @ (metric.root @ directions).to(vectors)
    return EmbeddingFactors(table, (directions.T @ metric.inverse).to(vectors))


@dataclass(frozen=True, kw_only=True)
class Embedding(KeepsShare):
    """Factorise the word embeddings, weighted by token frequency and by the gradient of the predictions."""

    keep: Keep
    """Fraction of the weights of the word embeddings to keep, e.g. 0.25."""
    smoothing: Annotated[float, Interval(ge=0, le=1_000_000_000)] = 1.0
    """Number added to the count of each token in the training text; a larger number makes tokens count more equally."""
    damping: Damping = 5.0
    """Damping added to the gradient moment, as a fraction of its mean eigenvalue; a larger number makes directions
    count more equally."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "train"})

    def locations(self, model: nn.Module, resources: Resources) -> TokenTable:
        """See `KeepsShare.locations`; the embeddings must be an ordinary table whose weights no other module shares."""
        return token_table(model)

    def compress(self, model: nn.Module, locations: TokenTable, resources: Resources) -> nn.Module:
        """See `KeepsShare.compress`; low-rank embeddings get a lower rank.

        Raises:
            MissingResource: there is no training data.
            InvalidParameter: `keep` leaves less than rank 1.
        """
        if resources.train is None:
            raise MissingResource("training data must be given, but got none; give --task")
        vectors = word_vectors(model)
        total = sum(weight.numel() for weight in model.get_submodule(locations.place).parameters())
        rank = int(self.keep * total / sum(vectors.shape))
        if rank < 1:
            raise InvalidParameter(
                f"keep must leave rank 1 or more of the {total} embedding parameters, but got keep={self.keep:g}; "
                f"give {sum(vectors.shape) / total:.2g} or more"
            )
        weights = token_counts(resources.train, len(vectors)) + self.smoothing
        factors = weighted_factors(vectors, weights, self._metric(model, locations.place, resources), rank)
        replace_module(model, locations.place, LowRankEmbedding.of(*factors, locations.embedding.padding_idx))
        return model

    def _metric(self, model: nn.Module, table: str, resources: Resources) -> RootAndInverse:
        """Return the roots of the metric in which an error of a word vector costs KL; one forward and backward pass."""
        batches, sides = require_calibration(resources), {table: Side.OUTPUT}
        moments = collect_moments(model, batches, [table], seed=resources.seed, temperature=TEMPERATURE, sides=sides)[
            table
        ]
        assert moments.gradient is not None
        return root_and_inverse(moments.gradient, damping=self.damping)
