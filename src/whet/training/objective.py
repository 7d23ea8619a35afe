"""What a student's answers lose against its teacher's, as losses to train on.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, for the logits;
Jiao et al., "TinyBERT", 2020, arXiv 1909.10351, for hidden states; Sanh et al., "DistilBERT", 2019, arXiv 1910.01108,
for their cosine; Wang, Bao, Huang, Dong, Wei, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for
Compressing Pretrained Transformers", 2021, arXiv 2012.15828, for relations.
Differs: the error of hidden states is a share of the teacher's own variance, so that its weight means the same for
every model; padding is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div

from whet.errors import InvalidModel
from whet.utils.parameters import check

__all__ = [
    "Attended",
    "Objective",
    "cosine_loss",
    "hidden_states_loss",
    "logits_loss",
    "paired_layers",
    "relations_loss",
]


class Attended(NamedTuple):
    """What one attention computes with."""

    query: Tensor
    """(examples, tokens, width), of all heads."""
    key: Tensor
    """As the queries."""
    value: Tensor
    """(examples, tokens, width), of all heads; another width is possible."""
    heads: int
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a student minimises: labels, and what of the teacher it shall give again, each with a weight."""

    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Weight of the teacher's predictions, against 1 − alpha for the labels."""
    temperature: Annotated[float, Interval(gt=0, lt=math.inf)] = 2.0
    """Divides both models' logits."""
    hidden_states: Annotated[float, Interval(ge=0, lt=math.inf)] = 0.0
    """Weight of the error of hidden states, each block's against the teacher's at the same share of its depth."""
    cosine: Annotated[float, Interval(ge=0, lt=math.inf)] = 0.0
    """Weight of 1 − cosine of the last hidden states."""
    relations: Annotated[float, Interval(ge=0, lt=math.inf)] = 0.0
    """Weight of the divergence of relations between tokens, of any widths, in the last attention of both."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)

    @property
    def reads_hidden_states(self) -> bool:
        """Whether both models must give their hidden states."""
        return self.hidden_states > 0 or self.cosine > 0

    @property
    def reads_predictions_alone(self) -> bool:
        """Whether nothing of the teacher but its predictions counts."""
        return not self.reads_hidden_states and self.relations == 0

    def loss(self, student: Any, teacher: Any, mask: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            student: what it answered, with its loss on the labels where alpha is below 1, with hidden states as wide as
                the teacher's and with `Attended` of its last attention as its attentions, where they count.
            teacher: what it answered, with the same.
            mask: (examples, tokens) bool, true where there is a token.

        Raises:
            InvalidModel: the two answer with other shapes.
        """
        # a model that answers at every token answers for padding too
        logits = [out.logits[mask] if out.logits.dim() == 3 else out.logits for out in (student, teacher)]
        logits = [one.float() for one in logits]  # (after products in bf16, which a softmax is too fine for)
        total = self.alpha * logits_loss(*logits, temperature=self.temperature)
        if self.alpha < 1:
            total = total + (1 - self.alpha) * student.loss
        if self.hidden_states > 0:
            # the first are the embeddings'
            own, wanted = student.hidden_states[1:], teacher.hidden_states[1:]
            targets = [wanted[i] for i in paired_layers(len(own), len(wanted))]
            total = total + self.hidden_states * hidden_states_loss(own, targets, mask)
        if self.cosine > 0:
            total = total + self.cosine * cosine_loss(student.hidden_states[-1], teacher.hidden_states[-1], mask)
        if self.relations > 0:
            total = total + self.relations * relations_loss(student.attentions, teacher.attentions, mask)
        return total


def paired_layers(student: int, teacher: int) -> list[int]:
    """Return the teacher's layer, from 0, that each of the student's layers learns from; the last from the last."""
    return [round((i + 1) * teacher / student) - 1 for i in range(student)]


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean 1 − cosine of (examples, tokens, hidden) over the tokens of `mask` (examples, tokens).

    A student that gives the first token alone learns from that one.

    Raises:
        InvalidModel: the teacher gives the first token's alone.
    """
    _require_all(teacher, mask)
    given = student.shape[1]
    real = mask[:, :given]
    return 1 - cosine_similarity(student[real], teacher[:, :given][real], dim=-1).mean()


def _require_all(teacher: Tensor, mask: Tensor) -> None:
    if teacher.shape[1] < mask.shape[1]:
        raise InvalidModel(
            "the teacher must give hidden states of all tokens, but its last block gives the first token's alone; "
            "learn from the model before lossless.first_token, or give hidden_states=0 and cosine=0"
        )


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
        student: one (examples, tokens, hidden) a layer; a layer of the first token alone learns from that one.
        teacher: one (examples, tokens, hidden) a layer.
        mask: (examples, tokens) bool, true where there is a token.

    Raises:
        InvalidModel: the teacher gives the first token's alone.
    """
    shares = []
    for own, wanted in zip(student, teacher, strict=True):
        _require_all(wanted, mask)
        variance = wanted[mask].var(0).mean().clamp_min(1e-12)
        given = own.shape[1]
        real = mask[:, :given]
        shares.append((own[real] - wanted[:, :given][real]).square().mean() / variance)
    return torch.stack(shares).mean()


def relations_loss(student: Attended, teacher: Attended, mask: Tensor) -> Tensor:
    """Return the mean KL(teacher ‖ student) of how tokens relate, between queries, between keys and between values.

    A token's relations are the softmax of its scaled products with all tokens, in as many heads as both can have.

    Args:
        student: of any widths.
        teacher: for the same tokens.
        mask: (examples, tokens) bool, true where there is a token.
    """
    heads = math.gcd(student.heads, teacher.heads)
    losses = []
    for own, wanted in zip(student[:3], teacher[:3], strict=True):
        p, q = (_relations(features, heads, mask) for features in (wanted, own))
        losses.append(kl_div(q, p, log_target=True, reduction="sum") / len(p))
    return torch.stack(losses).mean()


def _relations(features: Tensor, heads: int, mask: Tensor) -> Tensor:
    """(heads of real tokens, tokens) log-probabilities."""
    split = features.unflatten(-1, (heads, -1)).transpose(1, 2)
    products = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
    seen = products.masked_fill(~mask[:, None, None], torch.finfo(products.dtype).min)
    relations: Tensor = seen.log_softmax(-1).transpose(1, 2)[mask].flatten(0, 1)
    return relations
