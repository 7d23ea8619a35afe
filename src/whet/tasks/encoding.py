"""The one place where text becomes a model's inputs: tokens, cut to a length, in batches padded to their longest.

Batches hold so many examples, or as many as fit a budget of tokens: many short sentences cost what a few long ones do.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from whet.tasks.data import Batches, Examples

__all__ = ["encode", "filled", "fitting", "pad", "pad_batches", "shortest_first", "token_ids", "tokenize"]


def tokenize(examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> list[dict[str, Any]]:
    """Return one dictionary of token lists per example, cut to `max_length` tokens, with its label, in their order."""
    pairs = None if examples.pairs is None else list(examples.pairs)
    encoded = tokenizer(list(examples.texts), pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": label}
        for i, label in enumerate(examples.labels)
    ]


def token_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the token ids of each text with its special tokens; nothing is cut."""
    found: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    return found


def pad(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return rows of `tokenize` as one batch, each padded to the longest of them."""
    return dict(DataCollatorWithPadding(tokenizer)([dict(row) for row in rows]))


def pad_batches(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, *, batch_size: int | Sequence[int]
) -> list[dict[str, Tensor]]:
    """Return rows of `tokenize` in their order as padded batches without labels.

    Args:
        rows: one per example.
        tokenizer: the model's.
        batch_size: examples in every batch, of which the last may have fewer, or in each.
    """
    unlabeled = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
    if isinstance(batch_size, int):
        batch_size = [batch_size] * -(-len(rows) // batch_size)
    return [pad(unlabeled[start:end], tokenizer) for start, end in pairwise(accumulate(batch_size, initial=0))]


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
    rows = tokenize(examples, tokenizer, max_length=max_length)
    batches = pad_batches(rows, tokenizer, batch_size=batch_size)
    placed = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
    return Batches(placed, np.asarray([row["labels"] for row in rows]))


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
