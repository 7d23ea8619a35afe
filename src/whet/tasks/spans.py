"""Answers as spans of a context: the windows in which a model reads it, and the best span over all of them.

A model gives a logit for every token to be the start of the answer, and one to be its end. The best span is the pair of
tokens with the largest sum, the end not before the start, in the context, and not too long. The first token of a window
stands for "no answer".

Source: Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", 2019, arXiv 1810.04805, section 4.2 and 4.3.
Differs: the maximum is exact, over all pairs rather than over the 20 best starts and ends.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "LONGEST_ANSWER",
    "AnswerSpan",
    "Window",
    "WindowLogits",
    "best_span",
    "overlap",
    "question_room",
    "token_span",
    "window_of",
]

Array = np.ndarray[Any, Any]

LONGEST_ANSWER = 30
"""Tokens of the longest answer, where nothing else is asked for."""
CONTEXT = 1
"""The number by which tokenizers know the second text of a pair."""


class Window(NamedTuple):
    """The part of a context that one input of a model holds."""

    first: int
    """The position of the context's first token in the input, without padding before it."""
    offsets: Array
    """(tokens, 2) int, where each token of the part starts and ends in the context, in characters."""


class WindowLogits(NamedTuple):
    """What a model answers in one window."""

    window: Window
    """The part of the context."""
    start: Array
    """(tokens of the input and more,) logits of the start; those after the window are not read."""
    end: Array
    """The same of the end."""


class AnswerSpan(NamedTuple):
    """An answer."""

    start: int
    """Where it starts in the context, in characters."""
    end: int
    """Where it ends; equal to the start if there is no answer."""
    score: float
    """Its probability in its window, 0 to 1: that of the start times that of the end."""

    def text(self, context: str) -> str:
        """Return the answer, without spaces around it; empty if there is none."""
        return context[self.start : self.end].strip()


class _TokenSpan(NamedTuple):
    """The best pair of tokens of a window."""

    start: int
    """Index of the first token among those of the context."""
    end: int
    """Index of the last."""
    total: float
    """The sum of their logits."""


def overlap(max_length: int) -> int:
    """Return how many tokens of a context two neighbouring windows share: a third of their length."""
    return max_length // 3


def question_room(max_length: int, special: int) -> int:
    """Return how many tokens a question may have, after which a window still shows what its neighbour does not.

    Args:
        max_length: tokens of a window.
        special: special tokens among them.
    """
    return max_length - special - overlap(max_length) - 1


def window_of(sequence_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> Window:
    """Return the part of the context in an input, which may be none.

    Args:
        sequence_ids: for each token, 0 in the question, 1 in the context, and None for special ones.
        offsets: for each token, where it starts and ends in its text, in characters.
    """
    tokens = [i for i, text in enumerate(sequence_ids) if text == CONTEXT]
    found = np.asarray([offsets[i] for i in tokens], dtype=np.int32).reshape(-1, 2)
    return Window(tokens[0] if tokens else 0, found)


def token_span(window: Window, start: int, end: int) -> tuple[int, int]:
    """Return the first and the last token of an answer in an input; the first token twice if it is not whole in it.

    Args:
        window: the part of the context in the input.
        start: where the answer starts in the context, in characters.
        end: where it ends.
    """
    offsets = window.offsets
    if not len(offsets) or start < offsets[0, 0] or end > offsets[-1, 1] or end <= start:
        return 0, 0
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    return window.first + first, window.first + max(first, last)


def best_span(
    windows: Sequence[WindowLogits], *, longest: int = LONGEST_ANSWER, may_lack_answer: bool = False
) -> AnswerSpan:
    """Return the best answer over all windows of a question.

    Args:
        windows: the logits in each, one at least.
        longest: tokens of the longest answer.
        may_lack_answer: whether there may be no answer: it is chosen where the sum of both logits of the first token,
            in the window where it is least, is above that of the best span.
    """
    totals = [_best_tokens(one, longest) for one in windows]
    found = [i for i, total in enumerate(totals) if total is not None]
    none = min(range(len(windows)), key=lambda i: float(windows[i].start[0]) + float(windows[i].end[0]))
    lack = float(windows[none].start[0]) + float(windows[none].end[0])
    chosen = max(found, key=lambda i: totals[i].total, default=None)  # type: ignore[union-attr]
    span = None if chosen is None else totals[chosen]
    if chosen is None or span is None or (may_lack_answer and lack > span.total):
        return AnswerSpan(0, 0, _probability(windows[none], 0, 0))
    window = windows[chosen].window
    start, end = int(window.offsets[span.start, 0]), int(window.offsets[span.end, 1])
    return AnswerSpan(start, end, _probability(windows[chosen], window.first + span.start, window.first + span.end))


def _best_tokens(logits: WindowLogits, longest: int) -> _TokenSpan | None:
    """The pair of tokens with the largest sum of logits, the earliest of equal ones; None without tokens."""
    start, end = _of_context(logits, logits.start), _of_context(logits, logits.end)
    if not len(start):
        return None
    ends = np.pad(end, (0, longest - 1), constant_values=-np.inf)
    totals = start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, longest)
    first, length = divmod(int(totals.argmax()), longest)
    return _TokenSpan(first, first + length, float(totals[first, length]))


def _of_context(logits: WindowLogits, values: Array) -> Array:
    first, offsets = logits.window
    return values[first : first + len(offsets)].astype(float)


def _probability(logits: WindowLogits, start: int, end: int) -> float:
    """The probability of two tokens of an input, among the context's and the first."""
    total = 0.0
    for values, chosen in ((logits.start, start), (logits.end, end)):
        among = np.append(_of_context(logits, values), float(values[0]))
        top = among.max()
        total += float(values[chosen]) - top - float(np.log(np.exp(among - top).sum()))
    return float(np.exp(total))
