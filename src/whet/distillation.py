"""What a student's answers lose against its teacher's, as losses to train on.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, for the logits;
Jiao et al., "TinyBERT", 2020, arXiv 1909.10351, for hidden states.
Differs: the error of hidden states is a share of the teacher's own variance, so that its weight means the same for
every model; padding is left out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from whet.errors import InvalidModel

__all__ = ["hidden_states_loss", "logits_loss"]


def logits_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return the mean KL(teacher ‖ student) of softened predictions, times temperature².

    Args:
        student: (..., classes) logits; one class is a score, with half the squared difference as its loss.
        teacher: of the same shape.
        temperature: more than 0; divides both logits.

    Raises:
        InvalidModel: the two answer with other shapes.
    """
    if student.shape != teacher.shape:
        raise InvalidModel(
            f"the original must have as many labels as the model that learns from it, {student.shape[-1]}, "
            f"but got {teacher.shape[-1]}"
        )
    if student.shape[-1] == 1:
        return (student - teacher).square().mean() / 2
    flat = [(logits / temperature).flatten(0, -2).log_softmax(-1) for logits in (student, teacher)]
    return kl_div(flat[0], flat[1], log_target=True, reduction="batchmean") * temperature**2


def hidden_states_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the squared error of hidden states over the variance of the teacher's, mean over layers.

    Args:
        student: one (examples, tokens, hidden) a layer.
        teacher: of the same shapes.
        mask: (examples, tokens) bool, true where there is a token.
    """
    shares = []
    for own, wanted in zip(student, teacher, strict=True):
        target = wanted[mask]
        shares.append((own[mask] - target).square().mean() / target.var(0).mean().clamp_min(1e-12))
    return torch.stack(shares).mean()
