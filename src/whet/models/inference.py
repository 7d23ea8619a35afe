"""The forward pass over batches, and the inputs that models need."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.errors import InvalidModel
from whet.models.architecture import word_vectors
from whet.tasks.data import Batch
from whet.utils.progress import track

__all__ = ["example_batch", "input_names", "predict_logits", "removing_hooks", "to_device"]


def to_device(batch: Batch, model: nn.Module) -> dict[str, Tensor]:
    """Return the batch on the model's device."""
    device = next(model.parameters()).device
    return {key: value.to(device) for key, value in batch.items()}


def predict_logits(model: nn.Module, batches: Iterable[Batch], *, name: str | None = None) -> np.ndarray[Any, Any]:
    """Return (examples, classes) logits, in the order of the batches; half precision becomes float32.

    Args:
        model: in eval mode, on any device.
        batches: inputs, on any device.
        name: of the model, for a progress bar and for errors; without it there is no bar, and NaN is no error.

    Raises:
        InvalidModel: the model has a name, and its logits are not finite.
    """
    shown = batches if name is None else track(batches, f"logits of {name}")
    with torch.inference_mode():
        logits = torch.cat([_at_least_float32(model(**to_device(batch, model)).logits).cpu() for batch in shown])
    if name is not None and not logits.isfinite().all():
        raise InvalidModel(f"logits must be finite, but {name} gives NaN or infinity; check its weights")
    return logits.numpy()


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@contextlib.contextmanager
def removing_hooks(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks when the block ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_names(model: nn.Module, tokenizer_names: Sequence[str]) -> list[str]:
    """Return the model's inputs among those of its tokenizer, in the order of the model's arguments."""
    arguments = inspect.signature(model.forward).parameters
    return [name for name in arguments if name in tokenizer_names]


def example_batch(model: nn.Module, names: Sequence[str], size: int, length: int) -> dict[str, Tensor]:
    """Return random tokens as inputs of these names; every second example ends in padding.

    Args:
        model: gives the vocabulary and the padding token.
        names: of the inputs.
        size: number of examples.
        length: in tokens.
    """
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
