"""Tokenization and batching: text becomes token ids, truncated to a length, in padded batches.

A batch holds a fixed number of examples, or as many as fit a budget of tokens; with a budget, batches of many short
sentences and of a few long ones cost the same.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from whet.tasks.data import Batches, Examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from whet.tasks.base import Task

__all__ = [
    "batch_sizes",
    "cut_share",
    "encode",
    "fitting_batch_sizes",
    "pad",
    "pad_batches",
    "say_cut",
    "shortest_first",
    "token_ids",
    "tokenize",
]


def tokenize(examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> list[dict[str, Any]]:
    """Return one row per example, in order: its token lists, truncated to `max_length` tokens, and its label."""
    pairs = None if examples.pairs is None else list(examples.pairs)
    encoded = tokenizer(list(examples.texts), pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": label}
        for i, label in enumerate(examples.labels)
    ]


CUT_SAMPLE = 500
"""Number of texts by which the share of those that are cut is estimated."""
CUT_SHARE_TO_SAY = 0.01
"""Share of cut texts from which the user is told."""


def cut_share(examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
    """Return the fraction of examples with more than `max_length` tokens, from a sample if there are many."""
    some = examples.sample(CUT_SAMPLE, seed=0) if len(examples) > CUT_SAMPLE else examples
    pairs = None if some.pairs is None else list(some.pairs)
    ids = tokenizer(list(some.texts), pairs, verbose=False)["input_ids"] if len(some) else []
    return sum(len(tokens) > max_length for tokens in ids) / max(1, len(some))


def say_cut(task: "Task", examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> None:
    """Tell the user once for a task if texts are longer than `max_length` tokens, so that their ends are not read."""
    share = cut_share(examples, tokenizer, max_length=max_length)
    if share >= CUT_SHARE_TO_SAY:
        task.say_once(
            "cut",
            f"{share:.0%} of the texts are longer than {max_length} tokens, and their ends are cut off; "
            "--max-length sets another limit, as far as the model can read more",
        )


def token_ids(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Return the token ids of each text, with special tokens and without truncation."""
    ids: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    return ids


def pad(rows: Sequence[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Tensor]:
    """Return rows of `tokenize` as one batch, padded to the longest row."""
    from transformers import DataCollatorWithPadding  # slow to import

    return dict(DataCollatorWithPadding(tokenizer)([dict(row) for row in rows]))


def pad_batches(
    rows: Sequence[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase", *, batch_size: int | Sequence[int]
) -> list[dict[str, Tensor]]:
    """Return rows of `tokenize`, in order, as padded batches without labels.

    Args:
        rows: one per example.
        tokenizer: the model's tokenizer.
        batch_size: number of examples in a batch (the last may have fewer), or one number for each batch.
    """
    unlabeled = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
    if isinstance(batch_size, int):
        batch_size = [batch_size] * -(-len(rows) // batch_size)
    return [pad(unlabeled[start:end], tokenizer) for start, end in pairwise(accumulate(batch_size, initial=0))]


def shortest_first(examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Examples:
    """Return the examples in rising order of their length in tokens, after truncation to `max_length`."""
    lengths = [len(row["input_ids"]) for row in tokenize(examples, tokenizer, max_length=max_length)]
    return examples.take(np.argsort(lengths, kind="stable"))


def encode(
    examples: Examples,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    batch_size: int | Sequence[int],
    device: str = "cpu",
) -> Batches:
    """Return the examples, in order, as padded batches with their labels.

    Args:
        examples: the examples to encode.
        tokenizer: the model's tokenizer.
        max_length: largest number of tokens; longer inputs are truncated.
        batch_size: number of examples in a batch (the last may have fewer), or one number for each batch, from
            `fitting_batch_sizes`.
        device: device of the batches.
    """
    rows = tokenize(examples, tokenizer, max_length=max_length)
    batches = pad_batches(rows, tokenizer, batch_size=batch_size)
    on_device = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
    return Batches(on_device, np.asarray([row["labels"] for row in rows]))


def fitting_batch_sizes(
    examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, batch_tokens: int
) -> tuple[int, ...]:
    """Return the sizes of batches that hold at most `batch_tokens` tokens, padding included; see `batch_sizes`."""
    rows = tokenize(examples, tokenizer, max_length=max_length)
    return batch_sizes([len(row["input_ids"]) for row in rows], batch_tokens)


def batch_sizes(lengths: Sequence[int], batch_tokens: int) -> tuple[int, ...]:
    """Return the sizes of batches, in order, each as large as its padded size stays within the budget.

    Args:
        lengths: number of tokens of each example; sorted lengths need the least padding.
        batch_tokens: largest number of tokens in a batch; a longer example gets a batch of its own.
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
