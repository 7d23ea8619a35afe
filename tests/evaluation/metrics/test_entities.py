"""Scores of entities are those of seqeval, in both schemes and modes, with and without answers."""

import random

import numpy as np
import pytest
from seqeval import metrics as seqeval
from seqeval.scheme import IOB1, IOB2
from sklearn.exceptions import UndefinedMetricWarning

from whet.evaluation.metrics.base import quality_named
from whet.evaluation.metrics.entities import entity_counts, f1_of_counts
from whet.tasks.tags import iob2, strict_spans
from whet.tasks.words import NOT_ANSWERED

TYPES = ("LOC", "PER")
NAMES = ("O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI"))
TRUE_AND_PREDICTED = {
    "entity_f1": seqeval.f1_score,
    "entity_precision": seqeval.precision_score,
    "entity_recall": seqeval.recall_score,
}


def tagged(seed: int, count: int = 120) -> list[list[str]]:
    draw = random.Random(seed)
    lengths = random.Random(0)
    return [draw.choices(NAMES, weights=[4, 1, 2, 1, 2], k=lengths.randint(1, 8)) for _ in range(count)]


def nearly(sentences: list[list[str]], seed: int = 5) -> list[list[str]]:
    """The same tags, one in ten of them changed."""
    draw = random.Random(seed)
    return [[draw.choice(NAMES) if draw.random() < 0.1 else tag for tag in tags] for tags in sentences]


def indices(sentences: list[list[str]]) -> np.ndarray:
    found = np.empty(len(sentences), dtype=object)
    for i, tags in enumerate(sentences):
        found[i] = tuple(map(NAMES.index, tags))
    return found


TRUE = tagged(1)
PREDICTED = nearly(TRUE)


@pytest.mark.parametrize("name", TRUE_AND_PREDICTED)
@pytest.mark.parametrize("true", [TRUE, list(map(iob2, TRUE))], ids=["IOB1", "IOB2"])
def test_default_mode_is_that_of_seqeval(name, true):
    quality = quality_named(name).for_labels(NAMES)
    score = quality.score(indices(true), indices(PREDICTED))
    assert score == pytest.approx(TRUE_AND_PREDICTED[name](true, PREDICTED), abs=1e-12) and 0.2 < score < 1


@pytest.mark.parametrize(("scheme", "theirs"), [("IOB1", IOB1), ("IOB2", IOB2)])
def test_strict_mode_is_that_of_seqeval(scheme, theirs):
    counts = entity_counts(TRUE, PREDICTED, TYPES, lambda tags: strict_spans(tags, scheme)).sum((0, 1))
    expected = seqeval.f1_score(TRUE, PREDICTED, mode="strict", scheme=theirs)
    assert f1_of_counts(counts) == pytest.approx(expected, abs=1e-12)


def test_the_strict_metric_reads_the_scheme_of_the_tags():
    strict = quality_named("strict_entity_f1").for_labels(NAMES)
    expected = seqeval.f1_score(TRUE, PREDICTED, mode="strict", scheme=IOB2)
    assert strict.score(indices(TRUE), indices(PREDICTED)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["strict_entity_f1", "word_accuracy", "entity_f1"])
def test_a_head_that_speaks_iob1_is_scored_by_its_entities(name):
    iob2 = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-LOC", "O", "B-PER"], ["O", "B-PER", "I-PER", "O"]]
    iob1 = [["I-PER", "I-PER", "O", "I-LOC"], ["I-LOC", "B-LOC", "O", "O"], ["O", "I-PER", "I-PER", "O"]]
    expected = {"strict_entity_f1": 10 / 11, "word_accuracy": 11 / 12, "entity_f1": 10 / 11}
    assert quality_named(name).for_labels(NAMES).score(indices(iob2), indices(iob1)) == pytest.approx(expected[name])


def test_scores_of_types_are_those_of_seqeval():
    report = seqeval.classification_report(TRUE, PREDICTED, output_dict=True)
    counts = entity_counts(TRUE, PREDICTED, TYPES).sum(0)
    assert [f1_of_counts(row) for row in counts] == pytest.approx([report[kind]["f1-score"] for kind in TYPES])
    by_type = quality_named("entity_f1_by_type").for_labels(NAMES)
    assert by_type.score(indices(TRUE), indices(PREDICTED)) == pytest.approx(report["macro avg"]["f1-score"])


@pytest.mark.parametrize("name", TRUE_AND_PREDICTED)
def test_without_entities_scores_are_zero(name):
    nothing = [["O", "O"]]
    with pytest.warns(UndefinedMetricWarning):
        assert TRUE_AND_PREDICTED[name](nothing, nothing) == 0
    assert quality_named(name).for_labels(NAMES).score(indices(nothing), indices(nothing)) == 0


def test_words_without_an_answer_count_as_outside():
    whole = indices([["B-PER", "I-PER", "O", "B-LOC"]])
    cut = whole.copy()
    cut[0] = np.array([*whole[0][:3], NOT_ANSWERED])
    named = {name: quality_named(name).for_labels(NAMES) for name in (*TRUE_AND_PREDICTED, "word_accuracy")}
    found = {name: quality.score(whole, cut) for name, quality in named.items()}
    assert found == {
        "entity_f1": pytest.approx(2 / 3),
        "entity_precision": 1,
        "entity_recall": 0.5,
        "word_accuracy": 0.75,
    }
    cut[0] = np.array([*whole[0][:2], NOT_ANSWERED, whole[0][3]])
    assert named["word_accuracy"].score(whole, cut) == 1


def test_a_tag_that_the_data_lack_is_right_for_no_word():
    true, predicted = (np.empty(1, dtype=object) for _ in range(2))
    true[0], predicted[0] = np.array([0, 1, 0]), np.array([0, 1, 3])
    accuracy = quality_named("word_accuracy").for_labels(("O", "B-PER", "I-PER")).renumbered([0, 1, 2, 3])
    assert accuracy.score(true, predicted) == pytest.approx(2 / 3)


def test_the_order_of_tags_in_a_head_does_not_matter():
    order = [3, 0, 4, 1, 5]  # output 2 is a tag that the data lack
    renumbered = [
        np.array([order[tag] for tag in tags])
        for sentences in (indices(TRUE), indices(PREDICTED))
        for tags in sentences
    ]
    both = np.empty(len(renumbered), dtype=object)
    both[:] = renumbered
    true, predicted = both[: len(TRUE)], both[len(TRUE) :]
    for name in (*TRUE_AND_PREDICTED, "strict_entity_f1", "word_accuracy"):
        quality = quality_named(name).for_labels(NAMES)
        assert quality.renumbered(order).score(true, predicted) == quality.score(indices(TRUE), indices(PREDICTED))


def test_resampled_sentences_give_the_score_of_those_drawn():
    quality = quality_named("entity_f1").for_labels(NAMES)
    drawn = np.random.default_rng(0).integers(len(TRUE), size=len(TRUE))
    true, predicted = indices(TRUE), indices(PREDICTED)
    expected = seqeval.f1_score([TRUE[i] for i in drawn], [PREDICTED[i] for i in drawn])
    assert quality.statistic(true, predicted)(drawn) == pytest.approx(expected, abs=1e-12)
