"""The losses of distillation: how far a student's outputs are from its teacher's.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, for the logits;
Jiao et al., "TinyBERT", 2020, arXiv 1909.10351, for hidden states; Sanh et al., "DistilBERT", 2019, arXiv 1910.01108,
for their cosine; Wang, Bao, Huang, Dong, Wei, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for
Compressing Pretrained Transformers", 2021, arXiv 2012.15828, for relations.
Differs: the error of hidden states is relative to the teacher's variance, so that its weight means the same for every
model; padding is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div

from whet.errors import InvalidModel, InvalidParameter
from whet.tasks.data import Batch
from whet.tasks.kinds.base import TaskKind
from whet.utils.parameters import check
from whet.utils.ranges import Alpha, Temperature, Weight

__all__ = [
    "AttentionProjections",
    "Objective",
    "cosine_loss",
    "hidden_states_loss",
    "logits_loss",
    "paired_layers",
    "relations_loss",
    "similarities_loss",
]


class AttentionProjections(NamedTuple):
    """The queries, keys and values of one attention."""

    query: Tensor
    """(examples, tokens, width), of all heads."""
    key: Tensor
    """(examples, tokens, width), of all heads."""
    value: Tensor
    """(examples, tokens, value width), of all heads."""
    heads: int
    """Number of heads."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss that a student minimises, a weighted sum over the labels and the outputs of its teacher."""

    alpha: Alpha = 0.5
    """Weight of the teacher's predictions, e.g. 0.5; the labels have the weight 1 − alpha."""
    temperature: Temperature = 2.0
    """Temperature that divides the logits of both models, e.g. 2."""
    hidden_states: Weight = 0.0
    """Weight of the error of the hidden states; each block learns from the teacher's block at the same relative
    depth."""
    cosine: Weight = 0.0
    """Weight of 1 − cosine similarity of the last hidden states."""
    relations: Weight = 0.0
    """Weight of the divergence between the token relations in the last attention of both models, whose widths may
    differ."""
    similarities: Weight = 0.0
    """Weight of the error of the similarities of texts in a batch, for sentence embedders."""

    @classmethod
    def for_kind(cls, kind: TaskKind) -> Self:
        """Return the default for models of a kind; without labels, the teacher's predictions are all there is."""
        return cls() if kind.has_labels else cls(alpha=1.0)

    def check_kind(self, kind: TaskKind) -> None:
        """Check that the weights are of what models of a kind give.

        Raises:
            InvalidParameter: one of them is not.
        """
        if not kind.has_labels and self.alpha < 1:
            raise InvalidParameter(
                f"alpha=1 must hold for {kind.holds}, of which labels say nothing, but got alpha={self.alpha:g}; leave "
                "it out"
            )
        if kind.has_labels and self.similarities > 0:
            raise InvalidParameter(
                f"similarities=0 must hold for {kind.holds}, but got similarities={self.similarities:g}; leave it out"
            )

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)

    @property
    def reads_hidden_states(self) -> bool:
        """Whether both models must return their hidden states."""
        return self.hidden_states > 0 or self.cosine > 0

    @property
    def reads_predictions_alone(self) -> bool:
        """Whether the loss reads nothing of the teacher but its predictions."""
        return not self.reads_hidden_states and self.relations == 0

    def loss(self, student: Any, teacher: Any, batch: Batch, *, kind: TaskKind) -> Tensor:
        """Return the loss of one batch.

        Args:
            student: the student's output: its logits; its loss on the labels if alpha is below 1; hidden states of the
                teacher's width and, as `attentions`, the `AttentionProjections` of its last attention, if these have
                a weight.
            teacher: the teacher's output, without a loss.
            batch: the inputs of both models.
            kind: what the logits mean.

        Returns:
            A scalar.

        Raises:
            InvalidModel: the outputs of the two models have different shapes.
        """
        mask = batch["attention_mask"].bool()
        # bf16 is too coarse for a softmax
        logits = [kind.rows(outputs, batch).logits.float() for outputs in (student, teacher)]
        total = self.alpha * logits_loss(*logits, kind=kind, temperature=self.temperature)
        if self.alpha < 1:
            total = total + (1 - self.alpha) * student.loss
        if self.similarities > 0:
            total = total + self.similarities * similarities_loss(*logits)
        if self.hidden_states > 0:
            # the first hidden states are the embeddings
            student_states, teacher_states = student.hidden_states[1:], teacher.hidden_states[1:]
            targets = [teacher_states[i] for i in paired_layers(len(student_states), len(teacher_states))]
            total = total + self.hidden_states * hidden_states_loss(student_states, targets, mask)
        if self.cosine > 0:
            total = total + self.cosine * cosine_loss(student.hidden_states[-1], teacher.hidden_states[-1], mask)
        if self.relations > 0:
            total = total + self.relations * relations_loss(student.attentions, teacher.attentions, mask)
        return total


def paired_layers(student: int, teacher: int) -> list[int]:
    """Return, for each of the student's layers, the index of the teacher's layer from which it learns.

    Args:
        student: number of the student's layers.
        teacher: number of the teacher's layers; the last layers of both are paired.
    """
    return [round((i + 1) * teacher / student) - 1 for i in range(student)]


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of 1 − cosine similarity over tokens, a scalar.

    Args:
        student: (examples, tokens, hidden); a student that computes only the first token has tokens = 1.
        teacher: (examples, tokens, hidden).
        mask: (examples, tokens) bool, true for tokens, false for padding.

    Raises:
        InvalidModel: the teacher computes only the first token.
    """
    _require_all(teacher, mask)
    tokens = student.shape[1]
    is_token = mask[:, :tokens]
    return 1 - cosine_similarity(student[is_token], teacher[:, :tokens][is_token], dim=-1).mean()


def _require_all(teacher: Tensor, mask: Tensor) -> None:
    if teacher.shape[1] < mask.shape[1]:
        raise InvalidModel(
            "the teacher must give hidden states of all tokens, but its last block gives the first token's alone; "
            "take the model before lossless.first_token as the teacher, or give hidden_states=0 and cosine=0"
        )


def logits_loss(student: Tensor, teacher: Tensor, *, kind: TaskKind, temperature: float = 1.0) -> Tensor:
    """Return the mean KL(teacher ‖ student) of softened predictions, times temperature², a scalar.

    Args:
        student: (rows, outputs) logits.
        teacher: logits of the same shape.
        kind: what the logits mean.
        temperature: above 0; divides both logits.

    Raises:
        InvalidModel: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise InvalidModel(
            f"the teacher must have as many outputs as its student, {student.shape[-1]}, but got {teacher.shape[-1]}; "
            "give a teacher of the same task"
        )
    return kind.distillation_loss(student, teacher, temperature=temperature)


def similarities_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the mean squared error of the similarities between texts, a scalar; 0 for a single text.

    Args:
        student: (texts, width) vectors of unit length.
        teacher: (texts, any width) vectors of the same texts.
    """
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    if len(student) < 2:
        return student.sum() * 0
    errors = student @ student.T - teacher @ teacher.T
    return errors[others].square().mean() / 2


def hidden_states_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the squared error of hidden states relative to the teacher's variance, averaged over layers, a scalar.

    Args:
        student: (examples, tokens, hidden) per layer; a layer that computes only the first token has tokens = 1.
        teacher: (examples, tokens, hidden) per layer.
        mask: (examples, tokens) bool, true for tokens, false for padding.

    Raises:
        InvalidModel: the teacher computes only the first token.
    """
    errors = []
    for states, target in zip(student, teacher, strict=True):
        _require_all(target, mask)
        variance = target[mask].var(0).mean().clamp_min(1e-12)
        tokens = states.shape[1]
        is_token = mask[:, :tokens]
        errors.append((states[is_token] - target[:, :tokens][is_token]).square().mean() / variance)
    return torch.stack(errors).mean()


def relations_loss(student: AttentionProjections, teacher: AttentionProjections, mask: Tensor) -> Tensor:
    """Return the mean KL(teacher ‖ student) of token relations, a scalar.

    The relations of a token are the softmax of its scaled products with all tokens: of queries, of keys and of values.
    Features are split into the largest number of heads that divides the heads of both models.

    Args:
        student: projections of any width.
        teacher: projections of the same tokens.
        mask: (examples, tokens) bool, true for tokens, false for padding.
    """
    heads = math.gcd(student.heads, teacher.heads)
    losses = []
    for student_features, teacher_features in zip(student[:3], teacher[:3], strict=True):
        p, q = (_relations(features, heads, mask) for features in (teacher_features, student_features))
        losses.append(kl_div(q, p, log_target=True, reduction="sum") / len(p))
    return torch.stack(losses).mean()


def _relations(features: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Return the log-probabilities of the relations, (heads · real tokens, tokens)."""
    split = features.unflatten(-1, (heads, -1)).transpose(1, 2)
    products = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
    masked = products.masked_fill(~mask[:, None, None], torch.finfo(products.dtype).min)
    relations: Tensor = masked.log_softmax(-1).transpose(1, 2)[mask].flatten(0, 1)
    return relations
