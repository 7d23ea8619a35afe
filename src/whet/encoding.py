"""From sentences to padded batches, always by the same policy: sorted by length, each batch padded to its own longest."""

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from whet.resources import Batches, Examples

__all__ = ["encode", "tokenize"]


def tokenize(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> list[dict[str, Any]]:
    """Return one dictionary of token lists per example, cut to `max_length` tokens, with its label, in their order."""
    pairs = None if examples.pairs is None else list(examples.pairs)
    encoded = tokenizer(list(examples.texts), pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": label}
        for i, label in enumerate(examples.labels)
    ]


def encode(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int, batch_size: int
) -> Batches:
    """Return the examples as batches of at most `batch_size`, shortest first, each padded to its longest."""
    rows = sorted(tokenize(examples, tokenizer, max_length=max_length), key=lambda row: len(row["input_ids"]))
    labels = np.asarray([row.pop("labels") for row in rows])
    batches = [
        dict(tokenizer.pad(rows[start : start + batch_size], return_tensors="pt"))
        for start in range(0, len(rows), batch_size)
    ]
    return Batches(batches, labels)
