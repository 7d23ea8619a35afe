"""Tags of words to entities and back, and words of a text: pure functions that need no library.

A tag is O, or a prefix and a type such as B-PER. IOB2 opens every entity by B; IOB1 only one that touches another of
its type, so that I opens all others. `spans` reads both as the official scripts do, IOBES and BILOU too: a tag that
opens nothing, such as I-PER after O, opens an entity. `strict_spans` reads one scheme and drops what breaks its rules.

Source: Tjong Kim Sang, De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003, arXiv cs/0306050, script
conlleval; Nakayama, "seqeval: A Python framework for sequence labeling evaluation", 2018, for the strict modes.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

__all__ = [
    "OUTSIDE",
    "Scheme",
    "Span",
    "Tag",
    "first_pieces",
    "iob2",
    "is_iob",
    "is_iob1",
    "joined_words",
    "misplaced",
    "parsed",
    "spans",
    "strict_spans",
    "tag_names",
    "word_bounds",
]

OUTSIDE = "O"
"""The tag of a word that is part of no entity."""
Scheme = Literal["IOB1", "IOB2"]

_IOB1_RATIO = 10
"""Entities that start with I, for each that starts with B, above which sentences are in IOB1."""
_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
"""BILOU's last and unit are IOBES's end and single."""
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}])\w)+(?:[^\w\s]+(?:(?![{_IDEOGRAPH}])\w)+)*|[^\w\s]")
"""An ideograph, letters and digits with signs between them (U.N, well-known, 3,000), or a sign of its own."""


class Tag(NamedTuple):
    """A tag in its two parts."""

    prefix: str
    """O, B, I, E or S."""
    type: str
    """Such as PER; empty for O."""


class Span(NamedTuple):
    """An entity in the words of a sentence."""

    type: str
    """Such as PER."""
    start: int
    """Index of its first word."""
    end: int
    """Index behind its last word."""


@lru_cache(maxsize=4096)
def parsed(tag: str) -> Tag:
    """Return the parts of a tag; a tag without a prefix, such as a part of speech, is part of no entity."""
    prefix, _, kind = tag.partition("-")
    return Tag(_PREFIXES[prefix], kind or "_") if prefix in _PREFIXES else Tag(OUTSIDE, "")


def spans(tags: Sequence[str]) -> list[Span]:
    """Return the entities of a sentence, as the official script conlleval reads them."""
    found: list[Span] = []
    for i, (before, tag) in enumerate(_neighbours(tags)):
        if tag.prefix != OUTSIDE and _opens(before, tag):
            found.append(Span(tag.type, i, i + 1))
        elif tag.prefix != OUTSIDE:
            found[-1] = found[-1]._replace(end=i + 1)
    return found


def _opens(before: Tag, tag: Tag) -> bool:
    return tag.prefix in "BS" or before.prefix in "OES" or before.type != tag.type


def strict_spans(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """Return the entities of a sentence that keep the rules of a scheme, as seqeval's strict mode reads them."""
    read = [*map(parsed, tags), Tag(OUTSIDE, "")]
    found: list[Span] = []
    before, i = Tag(OUTSIDE, ""), 0
    while i < len(tags):
        end = i + 1
        if _opens_strictly(before, read[i], scheme):
            while read[end] == Tag("I", read[i].type):
                end += 1
            # in IOB1, B does not end the B of another type
            if scheme == "IOB2" or not (
                read[end - 1].prefix == read[end].prefix == "B" and read[end].type != read[i].type
            ):
                found.append(Span(read[i].type, i, end))
        before, i = read[end - 1], end
    return found


def _opens_strictly(before: Tag, tag: Tag, scheme: Scheme) -> bool:
    if scheme == "IOB2":
        return tag.prefix == "B"
    if tag.prefix == "I":
        return before.prefix in "OB" or before.type != tag.type
    return tag.prefix == "B" and before.prefix != OUTSIDE and before.type == tag.type


def iob2(tags: Sequence[str]) -> list[str]:
    """Return the tags of a sentence in IOB2, with the entities of `spans`."""
    written = [OUTSIDE] * len(tags)
    for span in spans(tags):
        written[span.start : span.end] = [f"B-{span.type}", *[f"I-{span.type}"] * (span.end - span.start - 1)]
    return written


def is_iob(tags: Collection[str]) -> bool:
    """Return whether tags are of IOB1 or IOB2: O, B-type and I-type alone, and a type somewhere.

    Tags of other schemes are not to be changed: a model's head has them too.
    """
    prefixes = {tag if tag == OUTSIDE else tag[:2] for tag in tags}
    return prefixes <= {OUTSIDE, "B-", "I-"} and prefixes != {OUTSIDE}


def is_iob1(sentences: Sequence[Sequence[str]]) -> bool:
    """Return whether sentences are in IOB1: far more entities start with I than with a B that IOB1 does not need.

    The official files of CoNLL-2003 have two such B among 35,089 entities.
    """
    opening, needless = _starts(sentences)
    return opening > _IOB1_RATIO * needless


def misplaced(sentences: Sequence[Sequence[str]]) -> int:
    """Return how many tags of IOB2 open nothing, and are read as if they did; 0 if the sentences are in IOB1."""
    opening, needless = _starts(sentences)
    return 0 if opening > _IOB1_RATIO * needless else opening


def _starts(sentences: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many entities start with I, and how many with a B that IOB1 does not need."""
    pairs = [pair for tags in sentences for pair in _neighbours(tags)]
    opening = sum(tag.prefix == "I" and _opens(before, tag) for before, tag in pairs)
    return opening, sum(tag.prefix == "B" and before.type != tag.type for before, tag in pairs)


def _neighbours(tags: Sequence[str]) -> Iterator[tuple[Tag, Tag]]:
    read = [Tag(OUTSIDE, ""), *map(parsed, tags)]
    return pairwise(read)


def tag_names(tags: Collection[str]) -> tuple[str, ...]:
    """Return the names of a tagger's classes: O, and in IOB2 both tags of every type; other tags as they are."""
    if is_iob(tags):
        types = sorted({parsed(tag).type for tag in tags} - {""})
        return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))
    return tuple(sorted(set(tags), key=lambda tag: (tag != OUTSIDE, tag)))


def word_bounds(text: str) -> list[tuple[int, int]]:
    """Return where the words of a running text start and end, in characters; signs are words of their own."""
    return [match.span() for match in _WORD.finditer(text)]


def joined_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a sentence of words with a space between any two, and where each starts and ends."""
    ends = list(accumulate(len(word) + 1 for word in words))
    return " ".join(words), [(end - len(word) - 1, end - 1) for word, end in zip(words, ends, strict=True)]


def first_pieces(
    offsets: Sequence[tuple[int, int]], bounds: Sequence[tuple[int, int]], text: str
) -> Iterator[tuple[int, int]]:
    """Yield the first token of each word that has one, as pairs of token and word.

    Args:
        offsets: of each token, the characters where it starts and ends; equal for tokens that stand for no text.
        bounds: of each word, where it starts and ends, rising.
        text: what both count the characters of. A token may start with the space before its word.
    """
    word, done = 0, -1
    for token, (begin, end) in enumerate(offsets):
        start = next((i for i in range(begin, end) if not text[i].isspace()), end)
        if start == end:
            continue
        while word < len(bounds) and bounds[word][1] <= start:
            word += 1
        if word < len(bounds) and bounds[word][0] < end and word > done:
            done = word
            yield token, word
