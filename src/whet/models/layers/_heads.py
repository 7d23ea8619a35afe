"""Multi-head attention in one call of PyTorch's fused kernel, and queries of the first token alone."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from whet.errors import InvalidParameter

__all__ = ["first_token_query", "refuse_attentions", "scaled_attention"]


def refuse_attentions(asked: object) -> None:
    """Refuse to leave out attention weights that transformers was asked for: it would return those of other blocks.

    Raises:
        InvalidParameter: output_attentions is true.
    """
    if asked:
        raise InvalidParameter(
            f"output_attentions must be off where attentions are compressed, but got output_attentions={asked}; ask "
            "the model that this was made from"
        )


def scaled_attention(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, mask: Tensor | None, dropout: float, scaling: float
) -> Tensor:
    """Return softmax(scaling · q kᵀ) v of every head, concatenated: (batch, queries, heads * value width).

    Args:
        query: (batch, queries, heads * width).
        key: (batch, tokens, heads * width).
        value: (batch, tokens, heads * value width).
        heads: number of heads.
        mask: (batch, 1, queries or 1, tokens); boolean, True at visible keys, or float, added to the scores; None
            means that all keys are visible.
        dropout: dropout probability of the attention weights.
        scaling: factor of the scores.
    """
    q, k, v = (features.unflatten(-1, (heads, -1)).transpose(1, 2) for features in (query, key, value))
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return mixed.transpose(1, 2).flatten(2)


def first_token_query(hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the first token's hidden states, (batch, 1, hidden), and its attention mask, (batch, 1, 1, tokens)."""
    return hidden_states[:, :1], None if mask is None else mask[:, :, :1]
