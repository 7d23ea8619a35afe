"""How long an input a model can read, from its configuration."""

from collections.abc import Mapping
from typing import Any

__all__ = ["longest_input"]

_AFTER_PADDING = (
    *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Families that number positions from the padding token's id + 1, so that as many positions are never used."""


def longest_input(config: Mapping[str, Any]) -> int | None:
    """Return the largest number of tokens that a model can read, or None if its configuration does not say."""
    positions: int | None = config.get("max_position_embeddings") or config.get("n_positions")
    padding = config.get("pad_token_id", 1)
    offset = config.get("model_type") in _AFTER_PADDING and isinstance(padding, int)
    limit = positions - padding - 1 if positions and offset else positions
    said = (config.get("whet_sentences") or {}).get("max_length")  # of a sentence embedder in memory
    # XLNet, which has no limit, says -1
    return min([length for length in (limit, said) if length and length > 0], default=None)
