"""Self-attention with a query for the first token alone, and keys and values of all tokens.

The module keeps the projections of the attention that it replaces, dense or compressed, under their original names.
LoRA and later methods find them unchanged, and without whet the same file loads as the full attention.
"""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from whet.models.layers._heads import first_token_query, refuse_attentions, scaled_attention
from whet.models.layers.base import SavedLayer

__all__ = ["FirstTokenAttention"]


class FirstTokenAttention(SavedLayer, nn.ModuleDict):
    """Replaces the self-attention of an encoder; it returns no attention weights."""

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        names: Mapping[str, str | None],
        *,
        heads: int,
        attention_head_size: int,
        scaling: float,
    ) -> None:
        """Take over the modules of the full attention.

        Args:
            parts: the children of the full attention by name; `dropout` is that of the attention weights.
            names: the child name of each role: query, key, value and output; None for an output elsewhere in the model.
            heads: number of heads.
            attention_head_size: features of each head.
            scaling: factor of the scores.
        """
        super().__init__(parts)
        self.names = dict(names)
        self.heads = heads
        self.attention_head_size = attention_head_size
        self.scaling = scaling

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: object, **others: object
    ) -> tuple[Tensor, None]:
        """Return (batch, 1, width of all heads), or (batch, 1, hidden) after an output projection; and None.

        Args:
            hidden_states: (batch, tokens, in).
            attention_mask: (batch, 1, tokens or 1, tokens); see `scaled_attention`.
            others: what transformers passes on; attention weights may not be asked for.
        """
        refuse_attentions(others.get("output_attentions"))
        first, mask = first_token_query(hidden_states, attention_mask)
        out = scaled_attention(
            self._part("query")(first),
            self._part("key")(hidden_states),
            self._part("value")(hidden_states),
            heads=self.heads,
            mask=mask,
            dropout=self["dropout"].p if self.training else 0.0,  # type: ignore[arg-type]
            scaling=self.scaling,
        )
        return (out if self.names["output"] is None else self._part("output")(out)), None

    @property
    def hides_attentions(self) -> bool:
        """See `SavedLayer.hides_attentions`."""
        return True

    def _part(self, role: str) -> nn.Module:
        return self[str(self.names[role])]

    def structure(self) -> dict[str, Any]:
        """See `SavedLayer.structure`."""
        return dict(self.names)

    @classmethod
    def in_place_of(cls, replaced: nn.Module, structure: Mapping[str, Any]) -> Self:
        """See `SavedLayer.in_place_of`."""
        full: Any = replaced
        layer = cls(
            dict(replaced.named_children()),
            {role: structure[role] for role in ("query", "key", "value", "output")},
            heads=_heads(full),
            attention_head_size=full.attention_head_size,
            # those that do not say so divide by the root of the width; first_token compares the logits
            scaling=getattr(full, "scaling", full.attention_head_size**-0.5),
        )
        return layer.train(replaced.training)


def _heads(attention: Any) -> int:
    count: int = getattr(attention, "num_attention_heads", None) or attention.n_heads
    return count
