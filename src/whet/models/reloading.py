"""The guard of every model that whet writes: it is loaded again, and must answer as it did in memory.

Families differ in how transformers saves and builds them. So a saved model is not taken for right before it has run.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whet.errors import InvalidModel
from whet.models.inference import answers, example_batch, kind_of_model
from whet.models.load import common_max_length, load_unverified

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_reloaded"]

SHAPE = (2, 8)
"""Examples and tokens of the batch whose answers are compared."""
TOLERANCE = 1e-3
"""Largest difference that is accepted, as a fraction of the largest answer."""


def check_reloaded(model: "PreTrainedModel", folder: Path) -> None:
    """Check that a model in a folder answers as the one in memory that it was saved from.

    Args:
        model: on any device.
        folder: what was written of it.

    Raises:
        InvalidModel: it cannot be loaded, or gives other answers.
    """
    kind = kind_of_model(model)
    try:
        reloaded = load_unverified(folder, kind=kind.name())
    except InvalidModel as error:
        raise _refusal(model, f"cannot be loaded: {str(error).replace(str(folder), 'it')}") from error
    expected, found = (_answers(one) for one in (model, reloaded))
    largest = float(expected.abs().max())
    difference = float((found - expected).abs().max()) if found.shape == expected.shape else torch.inf
    if not difference <= TOLERANCE * largest:
        raise _refusal(model, f"gives answers that differ by up to {difference:.3g}, where they reach {largest:.3g}")


def _refusal(model: nn.Module, what: str) -> InvalidModel:
    config: Any = model.config
    return InvalidModel(
        f"a saved model must answer as it does in memory, but this {type(model).__name__} ({config.model_type}) "
        f"{what}; nothing was written: take another method, or leave out layers with include"
    )


@torch.inference_mode()
def _answers(model: "PreTrainedModel") -> Tensor:
    """The answers to random tokens, which are the same for the same model, on the CPU."""
    was_training, kind = model.training, kind_of_model(model)
    size, length = SHAPE
    batch = example_batch(model, ["input_ids", "attention_mask"], size, common_max_length(length, model))
    logits = answers(model.eval(), batch, kind).logits.float().cpu()
    model.train(was_training)
    return logits
