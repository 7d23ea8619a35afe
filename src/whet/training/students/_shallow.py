"""Students without blocks: the teacher's words, one step over them, and a small head."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from annotated_types import Interval
from torch import nn
from transformers import PreTrainedModel

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.models.configs import Reader, ShallowConfig
from whet.models.embeddings import word_vectors
from whet.models.shallow import ShallowForSequenceClassification
from whet.training.students._words import drawn, head_of, require_text_head
from whet.training.students.base import BuiltStudent, Student
from whet.utils.parameters import whole_number_in

__all__ = ["Shallow"]


@dataclass(frozen=True, kw_only=True)
class Shallow(Student):
    """A student whose embeddings start as the leading principal components of the teacher's."""

    reader: ClassVar[Reader]
    """What reads the words."""
    width: Annotated[int, Interval(ge=1, le=16_384)] = 256
    """Width of the head's hidden layer, e.g. 256, and of the embeddings, as far as the teacher's are as wide."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """See `Student.from_text`: the width, such as `256`."""
        width = whole_number_in(text)
        if width is None:
            raise InvalidParameter(
                f"{cls.reader} must be {cls.reader}:WIDTH, but got {text!r}; give one such as {cls.reader}:256"
            )
        return cls(width=width)

    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """See `Student.build`; weights are drawn with the seed of the resources."""
        assert isinstance(teacher, PreTrainedModel)
        require_text_head(teacher, f"a {self.reader} student")
        words = word_vectors(teacher)
        width = min(self.width, words.shape[1])
        config = ShallowConfig(
            vocab_size=len(words),
            embedding_size=width,
            reader=self.reader,
            hidden_size=self.width,
            **head_of(teacher),
        )
        student = drawn(lambda: ShallowForSequenceClassification(config), teacher, words, seed=resources.seed)
        plan = f"{self.reader}, embeddings of {width} from the teacher, hidden layer of {self.width}"
        return BuiltStudent(student, plan, f"{self.reader} student (width {self.width})")
