"""The last self-attention of an encoder: its projections, and its restriction to the first token."""

from typing import Any

from torch import nn

from whet.errors import InvalidModel, NothingToCompress
from whet.models.attention import LAYOUTS, child_names, is_encoders, unsupported_attention
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.layers.first_token_norm import FirstTokenNorm
from whet.models.surgery import replace_module

__all__ = ["last_attention_projections", "restrict_to_first_token"]

NORMS = ("output.LayerNorm", "sa_layer_norm")
"""Names of the layer norm of x + attention(x) beside the attention, in the same families."""


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


def restrict_to_first_token(model: nn.Module, block: str) -> None:
    """Compute only the first token in the last block, in place: one query, and everything after the attention.

    Args:
        model: the model to change; a block that is already restricted stays unchanged.
        block: name of the last block, which applies layer norm after attention; nothing may read its other tokens.

    Raises:
        NothingToCompress: the block does not have one supported attention with a layer norm after it.
    """
    inside = [(name, module) for name, module in model.named_modules() if name.startswith(f"{block}.")]
    attentions = [
        (name, module) for name, module in inside if isinstance(module, CompressedAttention) or is_encoders(module)
    ]
    candidates = [f"{name.rpartition('.')[0]}.{norm}" for name, _ in attentions for norm in NORMS]
    norms = [
        (name, module)
        for name, module in inside
        if name in candidates and type(module) in (nn.LayerNorm, FirstTokenNorm)
    ]
    if len(attentions) != 1 or len(norms) != 1:
        raise NothingToCompress(
            f"{unsupported_attention(model)}, or without a layer norm after it; leave lossless.first_token out"
        )
    [(name, attention)], [(norm_name, norm)] = attentions, norms
    if isinstance(attention, CompressedAttention):
        attention.queries = "first"
    elif not isinstance(attention, FirstTokenAttention):
        query, key, value, output = LAYOUTS[child_names(attention)]
        names = {"query": query, "key": key, "value": value, "output": None if output.startswith("..") else output}
        replace_module(model, name, FirstTokenAttention.in_place_of(attention, names))
    if not isinstance(norm, FirstTokenNorm):
        replace_module(model, norm_name, FirstTokenNorm.in_place_of(norm, {}))
