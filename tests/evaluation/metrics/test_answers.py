"""Worked examples, and agreement with the rules of both evaluation scripts of SQuAD as they are published."""

import numpy as np
import pytest

from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.answers import AnswerF1, ExactMatch, normalized
from whet.evaluation.words import metric_in_words
from whet.report.tables import TABLE_METRICS
from whet.tasks.kinds.base import kind_named


def of(metric, answers: list[list[str]], predictions: list[str]) -> float:
    labels = np.empty(len(answers), dtype=object)
    for i, texts in enumerate(answers):
        labels[i] = tuple((text, 0) for text in texts)
    return metric.score(labels, np.asarray(predictions, dtype=object))


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("The  Denver Broncos!", "denver broncos"),
        ("a U.S. dollar", "us dollar"),
        ("an apple a day", "apple day"),
        ("Anthem", "anthem"),
        ("the", ""),
        ("rock 'n' roll", "rock n roll"),
        ("state-of-the-art", "stateoftheart"),
        ("5 – 7", "5 – 7"),  # only ASCII punctuation is left out
    ],
)
def test_case_punctuation_articles_and_spaces_do_not_count(answer: str, wanted: str):
    assert normalized(answer) == wanted


@pytest.mark.parametrize(
    ("answers", "prediction", "exact", "f1"),
    [
        (["Denver Broncos"], "the Denver Broncos", 1, 1),
        (["Denver Broncos"], "Broncos", 0, 2 / 3),
        (["Denver Broncos"], "Carolina Panthers", 0, 0),
        (["Santa Clara, California", "Levi's Stadium"], "Levi's Stadium in Santa Clara", 0, 2 * 2 / (2 + 5)),
        (["gold", "golden"], "golden", 1, 1),
        (["yes yes no"], "yes no no", 0, 2 * 2 / 6),  # words count as often as they occur in both
        (["gold"], "", 0, 0),
        (["the"], "a", 1, 0),  # in 1.1 no common word is no F1
    ],
)
def test_one_question_by_hand(answers: list[str], prediction: str, exact: float, f1: float):
    assert of(ExactMatch(), [answers], [prediction]) == exact
    assert of(AnswerF1(), [answers], [prediction]) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answers", "prediction", "exact", "f1"),
    [
        ([], "", 1, 1),
        ([], "gold", 0, 0),
        ([], "the", 1, 1),  # no words are no answer
        (["gold"], "", 0, 0),
        (["the", "gold"], "a", 0, 0),  # answers without words are left out
        (["the"], "", 1, 1),
        (["gold"], "golden gold", 0, 2 / 3),
    ],
)
def test_where_answers_may_lack_the_rules_are_those_of_squad_2(answers, prediction, exact, f1):
    unanswerable = [[]]
    assert of(ExactMatch(), [answers, *unanswerable], [prediction, "wrong"]) == exact / 2
    assert of(AnswerF1(), [answers, *unanswerable], [prediction, "wrong"]) == pytest.approx(f1 / 2)


def test_a_score_is_the_mean_over_questions():
    answers, predictions = [["one two"], ["three"], ["four"]], ["one", "three", "five"]
    assert of(ExactMatch(), answers, predictions) == pytest.approx(1 / 3)
    assert of(AnswerF1(), answers, predictions) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_tables_and_sentences_know_the_metrics():
    kind = kind_named("question_answering")
    assert set(kind.metrics) <= set(TABLE_METRICS)
    words = [metric_in_words(Measurement.count(name, 1, "")) for name in kind.metrics]
    assert words == ["F1 of answers", "exact match"]
