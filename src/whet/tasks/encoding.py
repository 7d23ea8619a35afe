"""Tokenization and batching: text becomes token ids, truncated to a length, in padded batches.

A batch holds a fixed number of examples, or as many as fit a budget of tokens; with a budget, batches of many short
sentences and of a few long ones cost the same.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whet.tasks.data import ANSWERED, TARGETS, Batches, Encoded, Examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from whet.tasks.base import Task

__all__ = [
    "LABELS",
    "batch_sizes",
    "encode",
    "fitting_batch_sizes",
    "in_batches",
    "label_array",
    "pad",
    "pad_batches",
    "say_cut",
    "shortest_first",
    "token_ids",
]


LABELS = frozenset({"labels", "start_positions", "end_positions"})
"""What rows hold for a model's own loss."""
Array = np.ndarray[Any, Any]


def say_cut(task: "Task", examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> None:
    """Tell the user once for a task what a model that reads `max_length` tokens misses; see `Examples.cut_note`."""
    task.say_once("cut", examples.cut_note(tokenizer, max_length=max_length))


def token_ids(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Return the token ids of each text, with special tokens and without truncation."""
    ids: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    return ids


_RAGGED = {"labels": -100, ANSWERED: 0, TARGETS: 0}
"""What fills up lists with one value a token; transformers' losses leave out the label -100."""


def pad(rows: Sequence[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Tensor]:
    """Return rows of `Examples.encode` as one batch, padded to the longest row."""
    from transformers import DataCollatorWithPadding  # slow to import

    ragged = {key for key in _RAGGED if key in rows[0] and isinstance(rows[0][key], list)}
    batch = dict(
        DataCollatorWithPadding(tokenizer)([{k: v for k, v in row.items() if k not in ragged} for row in rows])
    )
    length = batch["input_ids"].shape[1]
    for key in ragged:
        before = [length - len(row[key]) if tokenizer.padding_side == "left" else 0 for row in rows]
        batch[key] = torch.tensor(
            [
                [_RAGGED[key]] * start + list(row[key]) + [_RAGGED[key]] * (length - len(row[key]) - start)
                for start, row in zip(before, rows, strict=True)
            ]
        )
    return batch


def pad_batches(
    rows: Sequence[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase", *, batch_size: int | Sequence[int]
) -> list[dict[str, Tensor]]:
    """Return rows of `Examples.encode`, in order, as padded batches without labels.

    Args:
        rows: one per input.
        tokenizer: the model's tokenizer.
        batch_size: number of inputs in a batch (the last may have fewer), or one number for each batch.
    """
    unlabeled = [{key: value for key, value in row.items() if key not in LABELS} for row in rows]
    if isinstance(batch_size, int):
        batch_size = [batch_size] * -(-len(rows) // batch_size)
    return [pad(unlabeled[start:end], tokenizer) for start, end in pairwise(accumulate(batch_size, initial=0))]


def shortest_first(examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Examples:
    """Return the examples in rising order of their longest input in tokens, after truncation to `max_length`."""
    encoded = examples.brief().encode(tokenizer, max_length=max_length)
    return examples.take(np.argsort(_lengths(encoded, len(examples)), kind="stable"))


def _lengths(encoded: Encoded, count: int) -> Array:
    """The tokens of the longest input of each example."""
    lengths = np.zeros(count, dtype=int)
    for row, owner in zip(encoded.rows, encoded.owners, strict=True):
        if owner >= 0:
            lengths[owner] = max(lengths[owner], len(row["input_ids"]))
    return lengths


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
        batch_size: number of inputs in a batch (the last may have fewer), or one number for each batch, from
            `fitting_batch_sizes`.
        device: device of the batches.
    """
    encoded = examples.encode(tokenizer, max_length=max_length)
    return in_batches(examples, encoded, tokenizer, batch_size=batch_size, device=device)


def in_batches(
    examples: Examples,
    encoded: Encoded,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    batch_size: int | Sequence[int],
    device: str = "cpu",
) -> Batches:
    """Return examples that were encoded before as padded batches; see `encode`."""
    batches = pad_batches(encoded.rows, tokenizer, batch_size=batch_size)
    on_device = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
    own = encoded.owners == list(range(len(examples)))
    owners = None if own else np.asarray(encoded.owners)
    return Batches(on_device, label_array(examples.labels), owners, examples, encoded.notes)


def label_array(labels: Sequence[Any]) -> Array:
    """Return labels as an array with one entry each: of numbers if they are, else of objects."""
    if all(isinstance(label, int | float) for label in labels):
        return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    for i, label in enumerate(labels):
        array[i] = label
    return array


def fitting_batch_sizes(
    examples: Examples, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, batch_tokens: int
) -> tuple[int, ...]:
    """Return the sizes of batches that hold at most `batch_tokens` tokens, padding included; see `batch_sizes`."""
    rows = examples.encode(tokenizer, max_length=max_length).rows
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
