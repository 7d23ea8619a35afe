"""Tags are read as conlleval and seqeval read them, and written back without loss."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB1, IOB2, Tokens

from whet.tasks.tags import (
    Span,
    first_pieces,
    iob2,
    is_iob,
    joined_words,
    misplaced,
    parsed,
    spans,
    strict_spans,
    tag_names,
    word_bounds,
)


def sentences(prefixes: str, count: int = 400, seed: int = 0) -> list[list[str]]:
    """Random tags, most of which break some rule."""
    draw = random.Random(seed)
    tags = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC"))]
    return [draw.choices(tags, k=draw.randint(1, 9)) for _ in range(count)]


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_entities_are_those_of_seqeval(prefixes):
    for tags in sentences(prefixes):
        assert spans(tags) == [Span(kind, start, end + 1) for kind, start, end in get_entities(tags)]


@pytest.mark.parametrize(("name", "scheme"), [("IOB1", IOB1), ("IOB2", IOB2)])
def test_strict_entities_are_those_of_seqeval(name, scheme):
    for tags in sentences("BI"):
        expected = [Span(entity.tag, entity.start, entity.end) for entity in Tokens(tags, scheme).entities]
        assert strict_spans(tags, name) == expected


def test_iob2_has_the_same_entities_in_every_reading():
    for tags in sentences("BI"):
        written = iob2(tags)
        assert spans(written) == spans(tags) == strict_spans(written, "IOB2")
        assert iob2(written) == written


@pytest.mark.parametrize("tags", [["U-PER", "B-LOC", "L-LOC"], ["S-PER", "B-LOC", "E-LOC"]])
def test_single_and_last_words_are_read(tags):
    assert spans(tags) == [Span("PER", 0, 1), Span("LOC", 1, 3)]


def test_tags_without_a_prefix_are_no_entities():
    assert spans(["NN", "O", "VB"]) == []
    assert parsed("B-creative-work") == ("B", "creative-work")


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ([["I-PER", "I-PER", "O", "I-LOC"], ["I-PER", "B-PER"]], 0),  # IOB1
        ([["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "B-PER"]], 0),  # IOB2
        ([["B-PER", "O", "I-PER", "I-PER"], ["B-PER", "I-LOC"]], 2),  # IOB2 with faults
        ([["B-PER", "O", "I-PER", "O"], ["I-LOC"]], 2),  # one entity in three starts with a B that IOB1 does not need
        ([["O", "O"]], 0),
    ],
)
def test_tags_that_open_nothing_are_counted(written, count):
    assert misplaced(written) == count


def test_classes_are_both_tags_of_each_type():
    assert tag_names(["B-PER", "O", "B-LOC", "O"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert tag_names(["I-PER", "O"]) == ("O", "B-PER", "I-PER") and tag_names(["O"]) == ("O",)
    assert tag_names(["S-PER", "O", "B-LOC", "E-LOC"]) == ("O", "B-LOC", "E-LOC", "S-PER")
    assert tag_names(["VB", "NN", "VB"]) == ("NN", "VB")
    assert is_iob(["O", "B-PER"]) and is_iob(["O", "I-PER"]) and not is_iob(["B-PER", "E-PER"]) and not is_iob(["O"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The U.N. met in New-York, 3,000 came.", "The|U.N|.|met|in|New-York|,|3,000|came|."),
        ("  «Änne» isn't\t here…", "«|Änne|»|isn't|here|…"),
        ("我在北京ABC工作", "我|在|北|京|ABC|工|作"),
        ("", ""),
    ],
)
def test_words_of_a_text(text, words):
    assert "|".join(text[start:end] for start, end in word_bounds(text)) == words


def test_joined_words_lie_where_it_is_said():
    words = ["New", "York", "", "?"]
    text, bounds = joined_words(words)
    assert text == "New York  ?" and [text[start:end] for start, end in bounds] == words


def test_first_pieces_skip_spaces_special_tokens_and_words_without_tokens():
    text, bounds = "an apple ? tree", [(0, 2), (3, 8), (9, 10), (11, 15)]
    offsets = [(0, 0), (0, 2), (2, 5), (5, 8), (8, 9), (10, 15), (0, 0)]
    assert list(first_pieces(offsets, bounds, text)) == [(1, 0), (2, 1), (5, 3)]
