"""Entities of a text, from the tags of its words."""

from collections.abc import Sequence
from dataclasses import dataclass

from whet.tasks.tags import spans

__all__ = ["Entity", "entities_in"]


@dataclass(frozen=True, slots=True)
class Entity:
    """What a tagger finds in a text."""

    text: str
    """The entity as it stands in the text."""
    type: str
    """Such as PER."""
    start: int
    """The character of the text where it starts."""
    end: int
    """The character behind its last one."""
    score: float
    """Mean probability of the tags of its words."""


def entities_in(
    text: str, bounds: Sequence[tuple[int, int]], tags: Sequence[str], scores: Sequence[float]
) -> list[Entity]:
    """Return the entities of a text, in order; a tag that opens nothing is read as the official scripts do.

    Args:
        text: the text.
        bounds: of each word, the characters where it starts and ends.
        tags: of each word; O where the model gives none.
        scores: of each word, the probability of its tag.
    """
    found = []
    for span in spans(tags):
        start, end = bounds[span.start][0], bounds[span.end - 1][1]
        score = sum(scores[span.start : span.end]) / (span.end - span.start)
        found.append(Entity(text[start:end], span.type, start, end, score))
    return found
