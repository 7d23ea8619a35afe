"""The last block computed for the first token alone: where it can be cut, and which layers then see no other token.

A layer norm that passes only the first token on is such a cut: all that comes after it in the block sees one token.
Blocks that normalize first add that to the hidden states of all tokens, which stays right for the first. In attention
of BERT's kind the queries of the others can go too. Whether the answers stay the same is for the caller to test.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from whet.models.attention import INPUTS, LAYOUTS, child_names, is_encoders
from whet.models.inference import example_batch, model_inputs, removing_hooks
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.first_token_attention import FirstTokenAttention
from whet.models.layers.first_token_norm import FirstTokenNorm
from whet.models.surgery import replace_module

__all__ = ["computes_first_alone", "cuts", "first_token_layers"]

Cut = Callable[[nn.Module], None]
"""Changes a model in place."""

EXAMPLES, TOKENS = 2, 8
"""Sizes of the batch that shows what layers see."""
NORMS = ("output.LayerNorm", "sa_layer_norm")
"""Names of the layer norm of x + attention(x) beside the attention, in BERT's family and in DistilBERT."""


def computes_first_alone(model: nn.Module) -> bool:
    """Return whether the last block of the model computes only the first token after a layer norm."""
    return any(isinstance(module, FirstTokenNorm) for module in model.modules())


def first_token_layers(model: nn.Module) -> frozenset[str]:
    """Return the names of all modules that see only the first token of each example, by a run of the model."""
    if not computes_first_alone(model):
        return frozenset()
    alone: set[str] = set()

    def add(name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].shape[:-1] == (EXAMPLES, 1):
            alone.add(name)

    handles = [module.register_forward_pre_hook(partial(add, name)) for name, module in model.named_modules()]
    batch = example_batch(model, INPUTS, EXAMPLES, TOKENS)
    with removing_hooks(handles), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        model(**model_inputs(batch, model))
    return frozenset(alone)


def cuts(model: nn.Module, block: str) -> Iterator[Cut]:
    """Yield what may restrict a block to the first token, that which leaves out most first.

    Args:
        model: the model.
        block: name of its last block.
    """
    inside = [(name, module) for name, module in model.named_modules() if name.startswith(f"{block}.")]
    attentions = [name for name, one in inside if isinstance(one, CompressedAttention) or is_encoders(one)]
    norms = [name for name, module in inside if type(module) is nn.LayerNorm]
    for attention in attentions:
        for norm in norms:
            if norm in [f"{attention.rpartition('.')[0]}.{after}" for after in NORMS]:
                yield partial(_cut_attention, attention=attention, norm=norm)
    for norm in norms:
        yield partial(_cut_norm, norm=norm)


def _cut_attention(model: nn.Module, *, attention: str, norm: str) -> None:
    full = model.get_submodule(attention)
    if isinstance(full, CompressedAttention):
        full.queries = "first"
    else:
        query, key, value, output = LAYOUTS[child_names(full)]
        names = {"query": query, "key": key, "value": value, "output": None if output.startswith("..") else output}
        replace_module(model, attention, FirstTokenAttention.in_place_of(full, names))
    _cut_norm(model, norm=norm)


def _cut_norm(model: nn.Module, *, norm: str) -> None:
    replace_module(model, norm, FirstTokenNorm.in_place_of(model.get_submodule(norm), {}))
