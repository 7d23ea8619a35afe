"""A student that reads a text as the weighted mean of its words, whose weights it learns; some hundred times as fast.

The order of words is lost, so that it fits tasks that words decide. It is the floor of what speed costs, and the first
stage of a cascade.

Source: Tulkens, van Dongen, "Model2Vec: fast state-of-the-art static embeddings", 2024, for words of a Transformer as
static embeddings.
Differs: the words are the teacher's embeddings, not its outputs for single words; vectors and weights learn the task.
"""

from dataclasses import dataclass
from typing import ClassVar

from whet.models.configs import Reader
from whet.training.students._shallow import Shallow

__all__ = ["Static"]


@dataclass(frozen=True, kw_only=True)
class Static(Shallow):
    """Classify by the weighted mean of the words."""

    reader: ClassVar[Reader] = "static"
