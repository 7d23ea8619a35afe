"""The table of token embeddings: where a model keeps it, and how often training text reads each row."""

from typing import Any, NamedTuple

from torch import nn

from whet.errors import NothingToCompress
from whet.models.layers.low_rank_embedding import LowRankEmbedding

__all__ = ["TokenTable", "token_table"]


class TokenTable(NamedTuple):
    """A model's token embeddings."""

    name: str
    """Of the module."""
    embedding: nn.Embedding
    """The module itself."""
    place: str
    """Of the layer that answers with its rows: its own, or that of the low-rank layer whose table it is."""


def token_table(model: nn.Module) -> TokenTable:
    """Return the model's table of token embeddings; of low-rank ones the factor that has a row for each token.

    Raises:
        NothingToCompress: it is no ordinary table, or other modules use its weights too.
    """
    asked: Any = model
    answering = asked.get_input_embeddings()
    factored = isinstance(answering, LowRankEmbedding)
    table = answering.embedding if factored else answering
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
