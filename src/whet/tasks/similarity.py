"""Pairs of sentences with a score of how alike they are, for models that embed each sentence by itself.

A pair is one example and two inputs. What is scored is the cosine of the two vectors.

Source: Cer, Diab, Agirre, Lopez-Gazpio, Specia, "SemEval-2017 Task 1: Semantic Textual Similarity", 2017,
arXiv 1708.00055.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whet.errors import InvalidData
from whet.tasks.data import Batches, Encoded, Examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Embedded", "InSet", "SentencePairs", "encoded_texts", "unit_vectors"]

Array = np.ndarray[Any, Any]


class InSet(NamedTuple):
    """A score among those of one of several sets, each of which is scored by itself."""

    set: str
    """Name of the set."""
    score: float
    """How alike the two sentences are."""


@dataclass(frozen=True)
class Embedded(Examples, ABC):
    """Examples whose inputs a model turns into vectors, and which are answered by comparing these."""

    @abstractmethod
    def compared(self, vectors: Array, batches: Batches) -> Array:
        """Return (examples,) predictions, as the task's metrics read them.

        Args:
            vectors: (inputs, width) floats of any norm, in the order of the batches.
            batches: these examples, encoded.
        """


@dataclass(frozen=True)
class SentencePairs(Embedded):
    """Pairs of sentences, each with a score; one input for each side.

    The sides are `texts` and `pairs`; a prediction is the cosine of the two vectors, -1 ... 1.
    """

    def __post_init__(self) -> None:
        """Raises InvalidData if the second sentences are missing."""
        if self.pairs is None:
            raise InvalidData("an embedding model compares pairs of sentences, but got single ones; give --text-pair")

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`; the two sides of a pair follow each other, and a note is 0 for the first side."""
        assert self.pairs is not None
        texts = [text for pair in zip(self.texts, self.pairs, strict=True) for text in pair]
        rows = encoded_texts(texts, tokenizer, max_length=max_length)
        return Encoded(rows, [i // 2 for i in range(len(rows))], [i % 2 for i in range(len(rows))])

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """See `Examples.cut_share`; a pair is cut if one side is."""
        lengths = [len(row["input_ids"]) for row in self.encode(tokenizer, max_length=max_length + 1).rows]
        return float((np.reshape(lengths, (-1, 2)).max(1) > max_length).mean())

    def compared(self, vectors: Array, batches: Batches) -> Array:
        """See `Embedded.compared`; the cosine of the two sides."""
        owners, sides = _owners(batches), np.asarray(batches.notes)
        units = unit_vectors(vectors)
        first, second = (np.empty((len(self), units.shape[1])) for _ in range(2))
        first[owners[sides == 0]] = units[sides == 0]
        second[owners[sides == 1]] = units[sides == 1]
        cosines: Array = (first * second).sum(1)
        return cosines


def encoded_texts(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *, max_length: int, roles: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return one row of tokens for each text, without labels: only a teacher says what a vector should be.

    Args:
        texts: any.
        tokenizer: the model's tokenizer, with the prompts that sentence-transformers knows for it.
        max_length: in tokens; longer texts are cut.
        roles: what texts are, by the names of prompts; the first that has a prompt counts, or else the default prompt.
    """
    if not texts:
        return []
    prompts = getattr(tokenizer, "prompts", {})
    prompt = next((prompts[role] for role in roles if role in prompts), getattr(tokenizer, "default_prompt", ""))
    encoded = tokenizer([prompt + text for text in texts], truncation=True, max_length=max_length)
    return [{key: values[i] for key, values in encoded.items()} for i in range(len(texts))]


def unit_vectors(vectors: Array) -> Array:
    """Return (rows, width) vectors of norm 1 in float64; a vector of zeros stays as it is."""
    wide = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: Array = wide / np.where(norms > 0, norms, 1)
    return scaled


def _owners(batches: Batches) -> Array:
    assert batches.owners is not None  # two inputs for each example
    return batches.owners
