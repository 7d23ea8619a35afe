"""Which texts of a data set hold others, as SST-2's sentences hold its phrases, word for word."""

from collections import defaultdict
from collections.abc import Collection

__all__ = ["Words", "contained"]

Words = tuple[str, ...]
"""A text, word by word."""
KEYS = (8, 4, 2, 1)
"""A text is looked up by so many of its first words, the most that it has."""


def contained(texts: Collection[Words]) -> dict[Words, set[Words]]:
    """Return for each text that holds shorter ones, as runs of its words, which it holds.

    A text without words is held by none. The work grows with the number of words, and with how many lengths the texts
    have that begin alike.
    """
    known = {text for text in texts if text}
    lengths: dict[Words, set[int]] = defaultdict(set)
    for text in known:
        lengths[text[: next(size for size in KEYS if size <= len(text))]].add(len(text))
    sizes = {len(key) for key in lengths}
    found: dict[Words, set[Words]] = defaultdict(set)
    for text in known:
        for size in sizes:
            for start in range(len(text) - size + 1):
                for length in lengths.get(text[start : start + size], ()):
                    run = text[start : start + length]
                    if len(run) < len(text) and run in known:
                        found[text].add(run)
    return dict(found)
