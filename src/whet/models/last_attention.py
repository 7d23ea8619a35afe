"""The projections of the last self-attention of an encoder."""

from typing import Any

from torch import nn

from whet.errors import InvalidModel
from whet.models.attention import LAYOUTS, child_names
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.first_token_attention import FirstTokenAttention

__all__ = ["last_attention_projections"]


def last_attention_projections(model: nn.Module) -> tuple[tuple[str, str, str], int]:
    """Return the names of query, key and value of the last self-attention, dense or compressed, and its heads.

    Raises:
        InvalidModel: the model has no attention of a supported layout, or the last one has only one query.
    """
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, FirstTokenAttention) or (
            isinstance(module, CompressedAttention) and module.queries == "first"
        ):
            raise InvalidModel(
                f"relations need the queries of all tokens, but in {name} only the first has one; give relations=0"
            )
        if isinstance(module, CompressedAttention):
            return (f"{name}.query", f"{name}.key", f"{name}.value"), module.heads
        layout = LAYOUTS.get(child_names(module))
        if layout is not None:
            heads: Any = getattr(module, "num_attention_heads", None) or module.n_heads
            return (f"{name}.{layout[0]}", f"{name}.{layout[1]}", f"{name}.{layout[2]}"), heads
    raise InvalidModel(
        f"relations need an encoder's attention, with separate query, key and value layers, as in BERT, RoBERTa and "
        f"DistilBERT, but got {type(model).__name__}; give relations=0"
    )
