"""The table of token embeddings of a model, ordinary or factorised."""

from typing import Any, NamedTuple

from torch import nn

from whet.errors import NothingToCompress
from whet.models.layers.low_rank_embedding import LowRankEmbedding

__all__ = ["TokenTable", "input_embeddings", "token_table"]


class TokenTable(NamedTuple):
    """The table of a model's token embeddings."""

    name: str
    """Module name of the table."""
    embedding: nn.Embedding
    """The table, with a row per token."""
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
    except NotImplementedError as error:
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
    table = embeddings.embedding if factored else embeddings
    if type(table) is not nn.Embedding:
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
    return TokenTable(owners[0], table, owners[0].rpartition(".")[0] if factored else owners[0])
