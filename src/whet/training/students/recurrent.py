"""A recurrent student instead of a Transformer: an Elman network or an LSTM, in one direction or both.

Its embeddings start as the leading principal components of the teacher's, so that it knows words before training: with
E ≈ U_k S_k V_kᵀ, the student takes U_k S_k, which keeps the distances between words as well as k features can.

Source: Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", 2019, arXiv 1903.12136.
Differs: the student uses the teacher's tokens and embeddings instead of word vectors; padding is never read.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self, cast

from annotated_types import Interval
from torch import nn
from transformers import PreTrainedModel

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.models.configs import Cell, Pooling, RecurrentConfig
from whet.models.embeddings import word_vectors
from whet.models.recurrent import RecurrentForSequenceClassification
from whet.training.students._words import drawn, head_of, require_text_head
from whet.training.students.base import BuiltStudent, Student
from whet.utils.parameters import whole_number_in

__all__ = ["Recurrent"]

CELLS = {"rnn": ("rnn", False), "birnn": ("rnn", True), "lstm": ("lstm", False), "bilstm": ("lstm", True)}
"""For each cell name of the command line, the cell and whether it is bidirectional."""
ALLOWED_WORDS: tuple[list[str], ...] = ([], ["mean"], ["own"], ["mean", "own"])
"""What may follow the sizes, each word once."""


@dataclass(frozen=True, kw_only=True)
class Recurrent(Student):
    """Classify with a recurrent network."""

    cell: Cell = "lstm"
    """Kind of the recurrent cell: rnn (Elman) or lstm."""
    hidden_size: Annotated[int, Interval(ge=1, le=16_384)] = 256
    """Hidden size of each direction, e.g. 256; the embeddings have the same size, or the teacher's if that is
    smaller."""
    layers: Annotated[int, Interval(ge=1, le=100)] = 1
    """Number of stacked recurrent layers, e.g. 1."""
    bidirectional: bool = False
    """Whether a second network reads the text backwards."""
    embeddings: Literal["teacher", "own"] = "teacher"
    """How embeddings start: from the teacher's (teacher), or at random (own)."""
    pooling: Pooling = "last"
    """What the head reads: the state after the last token (last), or the mean over tokens (mean)."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """See `Student.from_text`: `lstm:256`, `bilstm:256:2` with two layers, or `rnn:128:own:mean`."""
        name, *parts = text.split(":")
        sizes = [number for part in parts if (number := whole_number_in(part)) is not None]
        words = [part for part in parts if whole_number_in(part) is None]
        if name not in CELLS or len(sizes) not in (1, 2) or sorted(words) not in ALLOWED_WORDS:
            raise InvalidParameter(
                f"recurrent must be CELL:WIDTH[:LAYERS][:own][:mean] with CELL one of {', '.join(CELLS)}, but got "
                f"{text!r}; give one such as bilstm:256"
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
        """See `Student.build`; weights are drawn with the seed of the resources."""
        assert isinstance(teacher, PreTrainedModel)
        require_text_head(teacher, "a recurrent student")
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
            **head_of(teacher),
        )
        start = words if self.embeddings == "teacher" else None
        student = drawn(lambda: RecurrentForSequenceClassification(config), teacher, start, seed=resources.seed)
        directions = "both directions" if self.bidirectional else "one direction"
        sizes = f"{self.layers} {self.cell} of width {self.hidden_size} in {directions}"
        plan = f"{sizes}, {self.embeddings} embeddings of {width}"
        name = f"{'Bi' if self.bidirectional else ''}{self.cell.upper()}"
        title = f"{name} student ({self.layers} {'layer' if self.layers == 1 else 'layers'}, width {self.hidden_size})"
        return BuiltStudent(student, plan, title)
