"""Which texts of a data set hold others, as SST-2's sentences hold its phrases, word for word."""

from collections import defaultdict
from collections.abc import Sequence

__all__ = ["contained"]

KEYS = (8, 4, 2, 1)
"""A text is looked up by so many of its first words, the most that it has."""


def contained(texts: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Return every (holder, held) pair of places: the words of the second are a run of the words of the first.

    Equal texts hold each other; a text without words is held by none. The work grows with the number of words, as long
    as few texts begin alike.

    Args:
        texts: the words of each text.
    """
    starts: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, words in enumerate(texts):
        if words:
            starts[tuple(words[: next(size for size in KEYS if size <= len(words))])].append(place)
    sizes = {len(key) for key in starts}
    return [
        (holder, held)
        for holder, words in enumerate(texts)
        for size in sizes
        for at in range(len(words) - size + 1)
        for held in starts.get(tuple(words[at : at + size]), ())
        if held != holder and words[at : at + len(texts[held])] == texts[held]
    ]
