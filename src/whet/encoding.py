"""From sentences to padded batches, by one policy: sorted by length, each batch padded to its own longest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from whet.resources import Batches, Examples

__all__ = ["encode", "shortest_first", "tokenize"]


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
    batch_size: int,
    device: str = "cpu",
) -> Batches:
    """Return the examples in their order, in batches of at most `batch_size`, each padded to its longest."""
    rows: Sequence[dict[str, Any]] = tokenize(examples, tokenizer, max_length=max_length)
    labels = np.asarray([row.pop("labels") for row in rows])
    batches = [
        dict(tokenizer.pad(rows[start : start + batch_size], return_tensors="pt").to(device))
        for start in range(0, len(rows), batch_size)
    ]
    return Batches(batches, labels)
