"""Layers whose weights other modules read without calling the layer, as DeBERTa reads its relative positions.

A layer with other weights in its place would never run, so methods that change how weights are stored leave it alone.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whet.models.inference import example_batch, kind_of_model, removing_hooks

__all__ = ["read_without_a_call"]

SHAPE = (2, 8)
"""Examples and tokens of the batch that shows it."""


@torch.inference_mode()
def read_without_a_call(model: nn.Module, names: Iterable[str]) -> frozenset[str]:
    """Return those of the layers that never run, but whose weights change the answers of the model.

    Args:
        model: in eval mode; it stays as it is. Of a model without a configuration, nothing is known.
        names: of layers with a `weight`.
    """
    if not hasattr(model, "config"):
        return frozenset()
    batch = example_batch(model, ["input_ids", "attention_mask"], *SHAPE)
    silent = set(names)
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: silent.discard(name)) for name in silent
    ]
    with removing_hooks(hooks):
        _answers(model, batch, ())
    return frozenset(name for name in silent if not _answers(model, batch, [name]).isfinite().all())


def _answers(model: nn.Module, batch: dict[str, Tensor], lost: Iterable[str]) -> Tensor:
    """The answers to a batch of a model in which the weights of some layers are NaN."""
    weights: dict[str, Any] = {f"{name}.weight": model.get_submodule(name).weight for name in lost}
    given = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
    changed = {name: torch.full_like(weight, torch.nan) for name, weight in weights.items()}
    outputs = functional_call(model, changed, (), given)
    return kind_of_model(model).rows(outputs, given).logits
