"""Self-attention with narrower or fewer heads, or with query, key and value projections that share one low-rank factor.

Every head computes softmax(scaling · (W_q z)ᵀ W_k z) W_v z, where z is the hidden state x, or Vx of a lower rank,
computed once. Queries and keys have one width, values another. The scaling stays that of the original width, since
narrower queries and keys approximate the same scores.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from whet.models.layers._heads import first_token_query, refuse_attentions, scaled_attention
from whet.models.layers.base import CompressedLayer

__all__ = ["CompressedAttention"]


class CompressedAttention(CompressedLayer):
    """Replaces the self-attention of an encoder; it returns no attention weights."""

    saved_as: ClassVar[str] = "attention"

    def __init__(
        self,
        in_features: int,
        *,
        heads: int,
        query_key_width: int,
        value_width: int,
        scaling: float,
        dropout: float,
        bias: bool,
        output: bool,
        rank: int | None = None,
        queries: Literal["all", "first"] = "all",
    ) -> None:
        """Create the projections.

        Args:
            in_features: hidden size of the model.
            heads: number of heads.
            query_key_width: features of each head's queries and keys.
            value_width: features of each head's values.
            scaling: factor of the scores.
            dropout: dropout probability of the attention weights, in training.
            bias: whether query, key and value have a bias.
            output: whether the module contains the output projection, which has a bias.
            rank: rank of the factor that query, key and value share; None if they read the hidden states directly.
            queries: tokens that have a query: all, or only the first if no later layer reads the others.
        """
        super().__init__()
        self.heads = heads
        self.scaling = scaling
        self.dropout = dropout
        self.in_features = in_features
        self.queries = queries
        self.shared = None if rank is None else nn.Linear(in_features, rank, bias=False)
        width = in_features if rank is None else rank
        self.query = nn.Linear(width, heads * query_key_width, bias=bias)
        self.key = nn.Linear(width, heads * query_key_width, bias=bias)
        self.value = nn.Linear(width, heads * value_width, bias=bias)
        self.output = nn.Linear(heads * value_width, in_features) if output else None

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: object
    ) -> tuple[Tensor, None]:
        """Return (batch, queries, heads * value_width), or (batch, queries, in) after an output projection; and None.

        Args:
            hidden_states: (batch, tokens, in).
            attention_mask: (batch, 1, tokens or 1, tokens); see `scaled_attention`.
            others: what transformers passes on; attention weights may not be asked for.
        """
        refuse_attentions(others.get("output_attentions"))
        z = hidden_states if self.shared is None else self.shared(hidden_states)
        query_input, mask = (z, attention_mask) if self.queries == "all" else first_token_query(z, attention_mask)
        out = scaled_attention(
            self.query(query_input),
            self.key(z),
            self.value(z),
            heads=self.heads,
            mask=mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return (out if self.output is None else self.output(out)), None

    @property
    def hides_attentions(self) -> bool:
        """See `SavedLayer.hides_attentions`."""
        return True

    def structure(self) -> dict[str, Any]:
        """See `CompressedLayer.structure`."""
        return {
            "in_features": self.in_features,
            "heads": self.heads,
            "query_key_width": self.query.out_features // self.heads,
            "value_width": self.value.out_features // self.heads,
            "scaling": self.scaling,
            "dropout": self.dropout,
            "bias": self.query.bias is not None,
            "output": self.output is not None,
            "rank": None if self.shared is None else self.shared.out_features,
            "queries": self.queries,
        }

    @classmethod
    def empty(cls, structure: Mapping[str, Any]) -> Self:
        """See `CompressedLayer.empty`."""
        return cls(**structure)
