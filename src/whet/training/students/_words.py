"""What students share that answer whole texts, and start from the teacher's words."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from whet.errors import InvalidModel
from whet.models._from_words import FromWords
from whet.models.checkpoint import KIND, said_kind
from whet.models.inference import kind_of_model
from whet.numerics.linalg import eigh_descending
from whet.tasks.kinds.base import TEXT_HEAD
from whet.training.students.base import require_size

__all__ = ["drawn", "head_of", "principal_components", "require_text_head"]


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


def drawn(make: Callable[[], FromWords], teacher: PreTrainedModel, words: Tensor | None, *, seed: int) -> FromWords:
    """Return a student with weights drawn by a seed.

    Args:
        make: makes it.
        teacher: whose place and name it takes.
        words: (words, width) of the teacher, from which its embeddings start; None if they are drawn too.
        seed: of the weights.

    Raises:
        InvalidParameter: it is absurdly large; see `require_size`.
    """
    require_size(make, teacher)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = make()
    if words is not None:
        student.embed_tokens.weight.data.copy_(principal_components(words, student.embed_tokens.embedding_dim))
    student.name_or_path = teacher.name_or_path
    student.to(teacher.device).eval()
    return student


def principal_components(words: Tensor, width: int) -> Tensor:
    """Return the leading principal components of the words, (words, width), scaled to the mean square 1 of new ones."""
    exact = words.double()
    _, vectors = eigh_descending(exact.T @ exact)
    components = exact @ vectors[:, :width]
    return (components / components.square().mean().sqrt()).to(words)
