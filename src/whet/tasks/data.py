"""Examples, which tasks provide, and batches, which models read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from whet.errors import InvalidData
from whet.utils.files import json_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ANSWERED", "TARGETS", "UNREAD", "Batch", "Batches", "Encoded", "Examples", "TrainingText"]

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Tensor]
"""Keyword arguments of a model: input_ids and attention_mask, (batch, length) int64, and others from the tokenizer; and
ANSWERED, where only some tokens count."""
ANSWERED = "answered"
"""The key of a batch that says of which tokens the outputs are read, (batch, length) bool; absent if of all."""
TARGETS = "targets"
"""The key of a batch that says which token the output at each token should predict, (batch, length) int64."""
UNREAD = frozenset({ANSWERED, TARGETS})
"""What a batch holds that no model reads."""


CUT_SAMPLE = 500
"""Number of texts by which the share of those that are cut is estimated."""
CUT_SHARE_TO_SAY = 0.01
"""Share of cut texts from which the user is told."""


class Encoded(NamedTuple):
    """Examples as inputs of a model, before padding."""

    rows: list[dict[str, Any]]
    """One per input: lists of tokens, `labels` for the model's own loss, and ANSWERED if only some tokens count."""
    owners: list[int]
    """The example that each input belongs to; -1 if it belongs to all, as the documents of a corpus do."""
    notes: list[Any]
    """What predictions need to know of each input, such as offsets into the text; empty if nothing."""


@dataclass(frozen=True)
class Examples:
    """Sentences or pairs of sentences, with their labels. An example is what resampling draws.

    Other forms of data are subclasses, which say how an example becomes inputs of a model.
    """

    texts: Sequence[Any]
    """The sentences, or the first sentences of pairs; in subclasses, whatever stands for one."""
    labels: Sequence[Any]
    """One per example: a class index into the task's label names or a score, NaN where no labels are read; in
    subclasses, whatever the task's kind reads."""
    pairs: Sequence[Any] | None = None
    """The second sentences of pairs, or None."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def judged(self) -> bool:
        """Whether labels tell good answers from others."""
        return True

    def take(self, indices: Sequence[int] | Array) -> Self:
        """Return the examples at `indices`, in their order."""
        return replace(
            self,
            texts=[self.texts[i] for i in indices],
            labels=[self.labels[i] for i in indices],
            pairs=None if self.pairs is None else [self.pairs[i] for i in indices],
        )

    def brief(self) -> Self:
        """Return the examples with as few inputs each as stand for them, for statistics and for timing.

        A query may have a whole corpus as its inputs, or a hundred candidates.
        """
        return self

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """Return the inputs of a model, in the order of the examples.

        Args:
            tokenizer: the model's tokenizer.
            max_length: in tokens, special ones included; longer texts are cut, or split where an example has windows.
        """
        pairs = None if self.pairs is None else list(self.pairs)
        encoded = tokenizer(list(self.texts), pairs, truncation=True, max_length=max_length)
        rows = [
            {**{key: values[i] for key, values in encoded.items()}, "labels": label}
            for i, label in enumerate(self.labels)
        ]
        return Encoded(rows, list(range(len(rows))), [])

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """Return the fraction of the examples of which a model that reads `max_length` tokens misses some."""
        pairs = None if self.pairs is None else list(self.pairs)
        ids = tokenizer(list(self.texts), pairs, verbose=False)["input_ids"]
        return sum(len(tokens) > max_length for tokens in ids) / len(self)

    def cut_note(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> str:
        """Return what to tell the user of what a model that reads `max_length` tokens misses; empty if it is little."""
        some = self.sample(CUT_SAMPLE, seed=0) if len(self) > CUT_SAMPLE else self
        share = some.cut_share(tokenizer, max_length=max_length) if len(some) else 0.0
        if share < CUT_SHARE_TO_SAY:
            return ""
        return (
            f"{share:.0%} of the texts are longer than {max_length} tokens, and their ends are cut off; "
            "--max-length sets another limit, as far as the model can read more"
        )

    def plain(self) -> list[tuple[str, ...]]:
        """Return the texts of each example: one, or the two of a pair."""
        return list(zip(*([self.texts] if self.pairs is None else [self.texts, self.pairs]), strict=True))

    def groups(self, size: int) -> list[list[int]]:
        """Return the indices of the examples that belong together, so that no two splits have any of a group.

        Args:
            size: number of consecutive examples that do; examples after the last whole group are in none.
        """
        return np.arange(len(self) // size * size).reshape(-1, size).tolist()

    def joined(self, others: "Examples") -> Self:
        """Return these examples followed by `others`.

        Raises:
            InvalidData: only one of the two has pairs of sentences, or the others are of another form.
        """
        if type(others) is not type(self):
            raise InvalidData(
                f"all data must be of the task's form, {type(self).__name__}, but got {type(others).__name__}; give "
                "others"
            )
        if (self.pairs is None) != (others.pairs is None):
            kinds = ["single sentences" if examples.pairs is None else "pairs" for examples in (self, others)]
            raise InvalidData(f"all text must be {kinds[0]}, as the task's is, but got {kinds[1]}; give others")
        pairs = None if self.pairs is None or others.pairs is None else [*self.pairs, *others.pairs]
        return replace(self, texts=[*self.texts, *others.texts], labels=[*self.labels, *others.labels], pairs=pairs)

    def digest(self) -> str:
        """Return the SHA-256 of texts and labels, which is equal for runs on the same data."""
        return json_digest([list(self.texts), list(self.pairs or []), list(self.labels)])

    def sample(self, count: int, *, seed: int) -> Self:
        """Return `count` examples drawn without replacement, or all examples in random order if there are fewer."""
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(order[:count])


@dataclass(frozen=True)
class Batches:
    """Encoded examples in batches, each padded to its longest input."""

    batches: Sequence[Batch]
    """The padded batches, without labels."""
    labels: Array
    """(examples,) labels in the order of the examples, maybe objects."""
    owners: Array | None = None
    """(inputs,) the example of each input, -1 if it belongs to all; each example is one input if None."""
    source: Examples | None = None
    """The examples, in the order of `labels`."""
    notes: Sequence[Any] = ()
    """What predictions need to know of each input; see `Encoded`."""

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
        return self.only(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def only(self, indices: Sequence[int] | Array) -> "Batches":
        """Return some of the batches, with the examples that have an input in them.

        Args:
            indices: of the batches, rising.
        """
        inputs = np.concatenate([np.arange(*self._bounds[i : i + 2]) for i in indices])
        owners = inputs if self.owners is None else self.owners[inputs]
        examples = np.unique(owners[owners >= 0])
        return Batches(
            [self.batches[i] for i in indices],
            self.labels[examples],
            None if self.owners is None else np.where(owners < 0, -1, np.searchsorted(examples, owners)),
            None if self.source is None else self.source.take(examples),
            [self.notes[i] for i in inputs] if self.notes else (),
        )

    @cached_property
    def _bounds(self) -> Array:
        """(batches + 1,) indices of the inputs between which each batch lies."""
        return np.cumsum([0, *(len(batch["input_ids"]) for batch in self.batches)])

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self._bounds[-1])

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
