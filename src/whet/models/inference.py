"""Forward passes over batches, and the inputs that they need."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.errors import InvalidModel
from whet.models.architecture import word_vectors
from whet.tasks.data import Batch, Batches
from whet.utils.progress import track

__all__ = ["answer", "answers", "example_batch", "input_names", "removing_hooks", "to_device"]


def to_device(batch: Batch, model: nn.Module) -> dict[str, Tensor]:
    """Return the batch on the model's device."""
    device = next(model.parameters()).device
    return {key: value.to(device) for key, value in batch.items()}


def answers(model: nn.Module, batches: Batches) -> np.ndarray[Any, Any]:
    """Return the logits of every example, (examples, classes)."""
    with torch.inference_mode():
        return torch.cat([model(**to_device(batch, model)).logits.cpu() for batch in batches]).numpy()


@contextlib.contextmanager
def removing_hooks(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks when the block ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_names(model: nn.Module, tokenizer_names: Sequence[str]) -> list[str]:
    """Return what a model reads of what its tokenizer gives, in the order in which exporters call for it."""
    own = inspect.signature(model.forward).parameters
    return [name for name in own if name in tokenizer_names]


def example_batch(model: nn.Module, names: Sequence[str], size: int, length: int) -> dict[str, Tensor]:
    """Return random tokens as inputs of these names; the last of every second example are padding."""
    random = torch.Generator().manual_seed(size * length)
    words = len(word_vectors(model))
    pad = int(model.config.pad_token_id or 0)  # type: ignore[union-attr, arg-type]
    ids = torch.randint(1, words, (size, length), generator=random)
    ids[ids == pad] = (pad + 1) % words
    mask = torch.ones_like(ids)
    mask[1::2, length - length // 3 :] = 0
    ids = ids.masked_fill(mask == 0, pad)
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: known[name] for name in names}


def answer(model: nn.Module, batches: Batches, *, what: str) -> np.ndarray[Any, Any]:
    """Return (examples, classes) float32 logits, in the order of the batches.

    Raises:
        InvalidModel: they are not finite.
    """
    with torch.inference_mode():
        found = [model(**batch).logits.cpu() for batch in track(batches.batches, f"answers of {what}")]
    logits = torch.cat(found).numpy()
    if not np.isfinite(logits).all():
        raise InvalidModel(f"answers must be finite, but {what} gave NaN or infinity; check its weights")
    return logits
