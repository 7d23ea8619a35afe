"""What students share that answer whole texts, and start from the teacher's words."""

from typing import Any

import torch
from transformers import PreTrainedModel

from whet.errors import InvalidModel
from whet.models.checkpoint import KIND, said_kind
from whet.models.inference import kind_of_model
from whet.numerics.linalg import eigh_descending
from whet.tasks.kinds.base import TEXT_HEAD

__all__ = ["head_of", "principal_components", "require_text_head"]


def require_text_head(teacher: PreTrainedModel, student: str) -> None:
    """Check that a teacher answers whole texts.

    Args:
        teacher: the teacher.
        student: what cannot answer anything else, for the message.

    Raises:
        InvalidModel: it does not.
    """
    kind = kind_of_model(teacher)
    if TEXT_HEAD not in kind.heads:
        raise InvalidModel(
            f"{student} must answer whole texts, but the teacher is {kind.holds}; give a student such as "
            "layer_subset:odd"
        )


def head_of(teacher: PreTrainedModel) -> dict[str, Any]:
    """Return what a student's configuration takes from its teacher's: the answers, their kind, and the padding."""
    config, said = teacher.config, said_kind(vars(teacher.config))
    head = {name: getattr(config, name) for name in ("id2label", "label2id", "problem_type", "pad_token_id")}
    return {**head, KIND: said} if said else head


def principal_components(words: torch.Tensor, width: int) -> torch.Tensor:
    """Return the leading principal components of the words, (words, width), scaled to the mean square 1 of new ones."""
    exact = words.double()
    _, vectors = eigh_descending(exact.T @ exact)
    components = exact @ vectors[:, :width]
    return (components / components.square().mean().sqrt()).to(words)
