"""Examples, which tasks provide, and batches, which models read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from whet.errors import InvalidData
from whet.utils.files import json_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Batch", "Batches", "Examples", "TrainingText"]


Batch = Mapping[str, Tensor]
"""Keyword arguments of a model: input_ids and attention_mask, (batch, length) int64, and others from the tokenizer."""


@dataclass(frozen=True)
class Examples:
    """Sentences or pairs of sentences, with their labels."""

    texts: Sequence[str]
    """The sentences, or the first sentences of pairs."""
    labels: Sequence[int] | Sequence[float]
    """Class indices into the task's label names, or scores; NaN where no labels are read."""
    pairs: Sequence[str] | None = None
    """The second sentences of pairs, or None."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> "Examples":
        """Return the examples at `indices`, in their order."""
        return Examples(
            texts=[self.texts[i] for i in indices],
            labels=np.asarray(self.labels)[np.asarray(indices, dtype=int)].tolist(),
            pairs=None if self.pairs is None else [self.pairs[i] for i in indices],
        )

    def joined(self, others: "Examples") -> "Examples":
        """Return these examples followed by `others`.

        Raises:
            InvalidData: only one of the two has pairs of sentences.
        """
        if (self.pairs is None) != (others.pairs is None):
            kinds = ["single sentences" if examples.pairs is None else "pairs" for examples in (self, others)]
            raise InvalidData(f"all text must be {kinds[0]}, as the task's is, but got {kinds[1]}; give others")
        pairs = None if self.pairs is None or others.pairs is None else [*self.pairs, *others.pairs]
        return Examples([*self.texts, *others.texts], [*self.labels, *others.labels], pairs)

    def digest(self) -> str:
        """Return the SHA-256 of texts and labels, which is equal for runs on the same data."""
        return json_digest([list(self.texts), list(self.pairs or []), list(self.labels)])

    def sample(self, count: int, *, seed: int) -> "Examples":
        """Return `count` examples drawn without replacement, or all examples in random order if there are fewer."""
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(order[:count])


@dataclass(frozen=True)
class Batches:
    """Encoded examples in batches, each padded to its longest example."""

    batches: Sequence[Batch]
    """The padded batches, without labels."""
    labels: np.ndarray[Any, Any]
    """(examples,) class indices or scores, in the order of the batches; NaN where no labels are read."""

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def share(self, part: float, *, seed: int) -> "Batches":
        """Return a random fraction of the batches, at least one, in their order.

        Args:
            part: the fraction, 0 to 1.
            seed: seed of the draw, which is without replacement.
        """
        count = max(1, round(part * len(self)))
        drawn = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        ends = np.cumsum([len(batch["input_ids"]) for batch in self.batches])
        labels = [self.labels[ends[i] - len(self.batches[i]["input_ids"]) : ends[i]] for i in drawn]
        return Batches([self.batches[i] for i in drawn], np.concatenate(labels))

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(len(batch["input_ids"]) for batch in self.batches)

    @property
    def tokens(self) -> int:
        """Number of tokens, without padding."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)


@dataclass(frozen=True)
class TrainingText:
    """The training examples before encoding, the held-out ones too, with the tokenizer that encodes them."""

    examples: Examples
    """Sentences or pairs of sentences."""
    tokenizer: "PreTrainedTokenizerBase"
    """The model's tokenizer, which must not be changed."""
