"""Pooling: one vector for a text from the vectors of its tokens, as sentence-transformers computes it.

Padding is left out, whichever side it stands on. Several poolings stand one after the other in the vector.

Source: Reimers, Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", EMNLP 2019,
arXiv 1908.10084; weighted means: Muennighoff, "SGPT: GPT Sentence Embeddings for Semantic Search", 2022,
arXiv 2202.08904.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["POOLINGS", "pool"]


def pool(states: Tensor, mask: Tensor, poolings: Sequence[str]) -> Tensor:
    """Return (texts, width · poolings) vectors.

    Args:
        states: (texts, tokens, width) vectors of tokens; a model that computes only the first token has tokens = 1.
        mask: (texts, tokens), 1 for tokens, 0 for padding; every text has a token at least.
        poolings: names among POOLINGS, in their order in the vector.
    """
    if states.shape[1] != mask.shape[1]:
        mask = mask[:, : states.shape[1]]
    vectors = [POOLINGS[name](states, mask) for name in poolings]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, -1)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1e-9)


def _mean_sqrt_length(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1e-9).sqrt()


def _weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The weight of a token is its place among the real ones, 1, 2, ..."""
    weights = (mask.cumsum(1) * mask).unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1e-9)


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return _at(states, mask.int().argmax(1))


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return _at(states, mask.shape[1] - 1 - mask.flip(1).int().argmax(1))


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(states.dtype).min).amax(1)


def _at(states: Tensor, places: Tensor) -> Tensor:
    """The vectors of one token of each text."""
    indices = places[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, indices).squeeze(1)


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_length,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""The names of sentence-transformers, in the order in which it joins several."""
