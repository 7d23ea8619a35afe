"""From sentences to padded batches, by one policy: sorted by length, each batch padded to its own longest.

Batches hold so many examples, or as many as fit a budget of tokens: many short sentences cost what a few long ones do.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from whet.tasks.data import Batches, Examples

__all__ = ["encode", "filled", "fitting", "shortest_first", "tokenize"]


def tokenize(examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> list[dict[str, Any]]:
    """Return one dictionary of token lists per example, cut to `max_length` tokens, with its label, in their order."""
    pairs = None if examples.pairs is None else list(examples.pairs)
    encoded = tokenizer(list(examples.texts), pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": label}
        for i, label in enumerate(examples.labels)
    ]


def shortest_first(examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Examples:
    """Return the examples in order of their length in tokens."""
    lengths = [len(row["input_ids"]) for row in tokenize(examples, tokenizer, max_length=max_length)]
    return examples.take(np.argsort(lengths, kind="stable"))


def encode(
    examples: Examples,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    batch_size: int | Sequence[int],
    device: str = "cpu",
) -> Batches:
    """Return the examples in their order, in batches that are each padded to its longest.

    Args:
        examples: what is encoded.
        tokenizer: the model's.
        max_length: longer inputs are cut, in tokens.
        batch_size: examples in every batch, of which the last may have fewer, or in each, as `fitting` gives them.
        device: where the batches go.
    """
    rows: Sequence[dict[str, Any]] = tokenize(examples, tokenizer, max_length=max_length)
    labels = np.asarray([row.pop("labels") for row in rows])
    if isinstance(batch_size, int):
        batch_size = [batch_size] * -(-len(rows) // batch_size)
    ends = accumulate(batch_size, initial=0)
    batches = [dict(tokenizer.pad(rows[start:end], return_tensors="pt").to(device)) for start, end in pairwise(ends)]
    return Batches(batches, labels)


def fitting(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int, batch_tokens: int
) -> tuple[int, ...]:
    """Return how many examples each batch holds if it may have this many tokens, padding included; see `filled`."""
    rows = tokenize(examples, tokenizer, max_length=max_length)
    return filled([len(row["input_ids"]) for row in rows], batch_tokens)


def filled(lengths: Sequence[int], batch_tokens: int) -> tuple[int, ...]:
    """Return sizes of batches, in order, each as large as examples times the longest stay within the budget.

    Args:
        lengths: tokens of each example; short ones next to each other are what makes it pay.
        batch_tokens: of a batch; one example of more is a batch by itself.
    """
    sizes: list[int] = []
    longest = 0
    for length in lengths:
        longest = max(longest, length)
        if sizes and (sizes[-1] + 1) * longest <= batch_tokens:
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    return tuple(sizes)
