"""Self-attention whose heads are narrower than the model's, or whose projections read one thin layer in common.

softmax(scaling · (W_q z)ᵀ W_k z) W_v z for every head, in one call of PyTorch's fused attention, which reads widths
from its arguments: one for queries and keys, another for values. The scaling stays that of the model's own width:
narrower queries and keys give the same scores. z is the hidden state x, or V x of lower rank, computed once.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from whet.models.layers._heads import first_token_query, scaled_attention
from whet.models.layers.base import CompressedLayer

__all__ = ["CompressedAttention"]


class CompressedAttention(CompressedLayer):
    """Takes the place of an encoder's self-attention; attention weights are not returned."""

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
        """Make the projections.

        Args:
            in_features: the model's hidden size.
            heads: how many.
            query_key_width: of each head's queries and keys.
            value_width: of each head's values.
            scaling: factor of the scores.
            dropout: of the attention weights, in training.
            bias: whether query, key and value have one.
            output: whether the output projection, with a bias, is in here.
            rank: of what query, key and value read in common; None, and they read the hidden states.
            queries: which tokens ask: all, or the first alone, where nothing reads the others.
        """
        super().__init__()
        self.heads = heads
        self.scaling = scaling
        self.dropout = dropout
        self.in_features = in_features
        self.queries = queries
        self.shared = None if rank is None else nn.Linear(in_features, rank, bias=False)
        read = in_features if rank is None else rank
        self.query = nn.Linear(read, heads * query_key_width, bias=bias)
        self.key = nn.Linear(read, heads * query_key_width, bias=bias)
        self.value = nn.Linear(read, heads * value_width, bias=bias)
        self.output = nn.Linear(heads * value_width, in_features) if output else None

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: object) -> tuple[Tensor, None]:
        """Return (batch, queries, heads * value_width), or hidden states where the output projection is in here.

        Args:
            hidden_states: (batch, tokens, in).
            attention_mask: (batch, 1, tokens or 1, tokens), true where a key is seen or added to scores; or none.
        """
        read = hidden_states if self.shared is None else self.shared(hidden_states)
        asking, mask = (read, attention_mask) if self.queries == "all" else first_token_query(read, attention_mask)
        out = scaled_attention(
            self.query(asking),
            self.key(read),
            self.value(read),
            heads=self.heads,
            mask=mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return (out if self.output is None else self.output(out)), None

    @property
    def reads_all(self) -> tuple[str, ...]:
        """Names of the children that read all tokens, even where the first alone asks."""
        return "key", "value", "shared"

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
