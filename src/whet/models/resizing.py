"""Configurations of the same model in other sizes."""

import copy
from typing import TYPE_CHECKING, Any

from whet.errors import InvalidParameter

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["resized_config"]

INTERMEDIATE_SIZES = ("intermediate_size", "hidden_dim", "n_inner")
"""Names by which model families call the width between the two layers of a feed-forward part."""


def resized_config(original: "PreTrainedConfig", *, layers: int, width: int, heads: int) -> "PreTrainedConfig":
    """Return a configuration with other sizes; the feed-forward width scales with the hidden size.

    Args:
        original: the configuration to change, of which a copy is made.
        layers: number of blocks.
        width: hidden size.
        heads: number of attention heads.

    Raises:
        InvalidParameter: the heads do not divide the width.
    """
    if width % heads:
        raise InvalidParameter(
            f"heads must divide the width, {width}, but got heads={heads}; give another number, such as heads=1"
        )
    config: Any = copy.deepcopy(original)
    vars(config).pop("quantization_config", None)  # the structure of a compressed model
    original_width = config.hidden_size
    config.num_hidden_layers, config.hidden_size, config.num_attention_heads = layers, width, heads
    if getattr(config, "num_key_value_heads", None):
        config.num_key_value_heads, config.head_dim = heads, width // heads
    intermediate = {name: getattr(config, name, None) for name in INTERMEDIATE_SIZES}
    config.update({name: size * width // original_width for name, size in intermediate.items() if size})
    resized_config: PreTrainedConfig = config
    return resized_config
