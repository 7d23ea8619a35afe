"""Entities lie in the text where their words do."""

import pytest

from whet.run.entities import Entity, entities_in
from whet.tasks.tags import word_bounds


def test_entities_lie_where_their_words_do():
    text = "Ann Lee left  Paris."
    found = entities_in(text, word_bounds(text), ["B-PER", "I-PER", "O", "I-LOC", "O"], [0.5, 1.0, 0.9, 0.75, 1.0])
    assert found == [Entity("Ann Lee", "PER", 0, 7, 0.75), Entity("Paris", "LOC", 14, 19, 0.75)]
    assert [text[one.start : one.end] for one in found] == [one.text for one in found]


@pytest.mark.parametrize("text", ["", "nothing here"])
def test_a_text_without_entities(text):
    bounds = word_bounds(text)
    assert entities_in(text, bounds, ["O"] * len(bounds), [1.0] * len(bounds)) == []
