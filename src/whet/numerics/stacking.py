"""Logits of different widths in one array: the outputs of a question answerer are the tokens of its batch.

Narrower logits are filled up with the least number, whose probability is 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["equally_wide", "stacked"]

Array = np.ndarray[Any, Any]


def stacked(rows: Sequence[Array]) -> Array:
    """Return the logits of several batches, (rows, outputs); narrower ones are filled up with the least number.

    The outputs of a question answerer are the tokens of its batch.
    """
    width = max(part.shape[1] for part in rows)
    return np.concatenate([_filled_up(part, width) for part in rows])


def equally_wide(one: Array, other: Array, *, absent: float | None = None) -> tuple[Array, Array]:
    """Return the (rows, outputs) logits of two models with as many outputs as the wider one has.

    Args:
        one: of a model.
        other: of another.
        absent: what fills up the narrower ones; the least number if None.
    """
    width = max(one.shape[1], other.shape[1])
    return _filled_up(one, width, absent), _filled_up(other, width, absent)


def _filled_up(logits: Array, width: int, absent: float | None = None) -> Array:
    if logits.shape[1] == width:
        return logits
    value = np.finfo(logits.dtype).min if absent is None else absent
    return np.pad(logits, ((0, 0), (0, width - logits.shape[1])), constant_values=value)
