"""A recurrent network instead of a Transformer: an Elman network or an LSTM, in one direction or both.

Its embeddings are the leading principal directions of the teacher's, so that it knows words before it has read any: E ≈
U_k S_k V_kᵀ and the student takes U_k S_k, in which all distances between words are the best that k features can keep.

Source: Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", 2019, arXiv 1903.12136.
Differs: the teacher's own tokens and embeddings instead of word vectors; padding is never read.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self, cast

import torch
from annotated_types import Interval
from torch import nn
from transformers import PreTrainedModel

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.models.architecture import word_vectors
from whet.models.configs import Cell, Pooling, RecurrentConfig
from whet.models.recurrent import RecurrentForSequenceClassification
from whet.numerics.linalg import eigh_descending
from whet.training.students.base import BuiltStudent, Student

__all__ = ["Recurrent"]

CELLS = {"rnn": ("rnn", False), "birnn": ("rnn", True), "lstm": ("lstm", False), "bilstm": ("lstm", True)}
"""Names that texts may give, and what they stand for."""


@dataclass(frozen=True, kw_only=True)
class Recurrent(Student):
    """Read with a recurrent network."""

    cell: Cell = "lstm"
    """Elman's, or an LSTM."""
    hidden_size: Annotated[int, Interval(ge=1)] = 256
    """Features of each direction, and of the embeddings, where the teacher's have no fewer."""
    layers: Annotated[int, Interval(ge=1)] = 1
    """On top of each other."""
    bidirectional: bool = False
    """Whether a second network reads backwards."""
    embeddings: Literal["teacher", "own"] = "teacher"
    """Whether words start as the teacher knows them, or at random."""
    pooling: Pooling = "last"
    """What the head reads: the state after the last token, or the mean over tokens."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the student of `lstm:256`, `bilstm:256:2` (layers), `rnn:128:own:mean`."""
        name, *parts = text.split(":")
        words = [part for part in parts if not part.isdigit()]
        sizes = [int(part) for part in parts if part.isdigit()]
        if name not in CELLS or len(sizes) not in (1, 2) or not set(words) <= {"own", "mean"}:
            raise InvalidParameter(
                f"recurrent must be CELL:WIDTH, with layers, own and mean after it if they are meant, and CELL one of "
                f"{', '.join(CELLS)}, but got {text!r}; such as bilstm:256"
            )
        cell, bidirectional = CELLS[name]
        return cls(
            cell=cast(Cell, cell),
            hidden_size=sizes[0],
            layers=sizes[1] if len(sizes) > 1 else 1,
            bidirectional=bidirectional,
            embeddings="own" if "own" in words else "teacher",
            pooling="mean" if "mean" in words else "last",
        )

    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """See `Student.build`; weights are drawn from the seed of the resources."""
        assert isinstance(teacher, PreTrainedModel)
        words = word_vectors(teacher)
        width = min(self.hidden_size, words.shape[1])
        config = RecurrentConfig(
            vocab_size=len(words),
            embedding_size=width,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            cell=self.cell,
            bidirectional=self.bidirectional,
            pooling=self.pooling,
            id2label=teacher.config.id2label,
            label2id=teacher.config.label2id,
            problem_type=teacher.config.problem_type,
            pad_token_id=teacher.config.pad_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(resources.seed)
            student = RecurrentForSequenceClassification(config)
        if self.embeddings == "teacher":
            student.embed_tokens.weight.data.copy_(_reduced(words, width))
        student.name_or_path = teacher.name_or_path
        ways = "both directions" if self.bidirectional else "one direction"
        sizes = f"{self.layers} {self.cell} of width {self.hidden_size} in {ways}"
        plan = f"{sizes}, {self.embeddings} embeddings of {width}"
        return BuiltStudent(student.to(words.device).eval(), plan)


def _reduced(words: torch.Tensor, width: int) -> torch.Tensor:
    """(words, width) the words' leading principal components, with a mean square of 1 as fresh embeddings have."""
    exact = words.double()
    _, vectors = eigh_descending(exact.T @ exact)
    found = exact @ vectors[:, :width]
    return (found / found.square().mean().sqrt()).to(words)
