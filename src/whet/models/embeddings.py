"""The table of token embeddings of a model: ordinary, or with rows times one number, as Gemma's, or factorised."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from whet.errors import NothingToCompress
from whet.models.layers.low_rank_embedding import LowRankEmbedding

__all__ = ["TokenTable", "input_embeddings", "row_scale", "token_table", "word_vectors"]

ROWS = 8
"""Rows that are looked up to see what a table makes of them."""


class TokenTable(NamedTuple):
    """The table of a model's token embeddings."""

    name: str
    """Module name of the table."""
    embedding: nn.Embedding
    """The table, with a row per token."""
    scale: float
    """What rows are multiplied by."""
    place: str
    """Module name of the whole embedding: the table itself, or the low-rank layer that contains it."""


def input_embeddings(model: nn.Module) -> nn.Module:
    """Return the embeddings of tokens.

    Raises:
        NothingToCompress: the model has no table of them, as CANINE, which hashes characters.
    """
    transformer: Any = model
    try:
        embeddings: nn.Module = transformer.get_input_embeddings()
    except NotImplementedError as error:  # of CANINE, which hashes characters
        raise NothingToCompress(
            f"token embeddings must be an ordinary table, but {type(model).__name__} has none; leave embeddings out"
        ) from error
    return embeddings


def token_table(model: nn.Module) -> TokenTable:
    """Return the table of token embeddings; of low-rank embeddings, the factor with a row per token.

    Raises:
        NothingToCompress: the embedding is not an ordinary table, or shares its weights with other modules.
    """
    embeddings = input_embeddings(model)
    factored = isinstance(embeddings, LowRankEmbedding)
    table: Any = embeddings.embedding if factored else embeddings
    scale = row_scale(table)
    if scale is None:
        raise NothingToCompress(
            f"token embeddings must be an ordinary table, but {type(model).__name__} has {type(table).__name__}; "
            "leave embeddings out"
        )
    owners = [name for name, module in model.named_modules() if getattr(module, "weight", None) is table.weight]
    if len(owners) > 1:
        raise NothingToCompress(
            f"token embeddings must have weights of their own, but {' and '.join(owners)} share them; "
            "leave embeddings out"
        )
    return TokenTable(owners[0], table, scale, owners[0].rpartition(".")[0] if factored else owners[0])


def row_scale(table: nn.Module) -> float | None:
    """Return what a table multiplies its rows by: 1 for an ordinary one; None if it does more, or is no table."""
    if not isinstance(table, nn.Embedding):
        return None
    if type(table) is nn.Embedding:
        return 1.0
    rows = table.weight.detach()[:ROWS]
    with torch.inference_mode():
        found = table(torch.arange(len(rows), device=rows.device))
    scale = float(found.norm() / rows.norm().clamp_min(torch.finfo(rows.dtype).tiny))
    return scale if torch.allclose(found, scale * rows, rtol=1e-4) else None


def word_vectors(model: nn.Module) -> Tensor:
    """Return the input embedding of every token, (tokens, features), also of scaled and of low-rank embeddings."""
    module = input_embeddings(model)
    table = next(child for child in module.modules() if isinstance(child, nn.Embedding))
    rows = table.weight.detach() * (row_scale(table) or 1.0)
    # the projection may be a layer of another method by now
    return module.projection(rows).detach() if isinstance(module, LowRankEmbedding) else rows
