import itertools

import numpy as np
import pytest

from whet.tasks.spans import AnswerSpan, Window, WindowLogits, best_span, token_span, window_of

WORDS = ("to", "be", "or", "not", "to", "be")
CONTEXT = " ".join(WORDS)
ENDS = np.cumsum([len(word) + 1 for word in WORDS]) - 1
OFFSETS = np.stack([ENDS - [len(word) for word in WORDS], ENDS], axis=1)


def window(first: int, start: int, end: int, seed: int, extra: int = 0) -> WindowLogits:
    """The words from `start` to `end` after `first` other tokens, with random logits."""
    random = np.random.default_rng(seed)
    length = first + end - start + 1 + extra
    return WindowLogits(Window(first, OFFSETS[start:end]), random.normal(size=length), random.normal(size=length))


def all_spans(windows: list[WindowLogits], longest: int) -> list[tuple[float, int, int]]:
    """Every span that may be an answer, with the sum of its logits, by hand."""
    spans = []
    for one in windows:
        tokens = range(len(one.window.offsets))
        for i, j in itertools.product(tokens, tokens):
            if i <= j < i + longest:
                first = one.window.first
                total = one.start[first + i] + one.end[first + j]
                spans.append((total, int(one.window.offsets[i, 0]), int(one.window.offsets[j, 1])))
    return spans


@pytest.mark.parametrize("longest", [1, 2, 3, 30])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_span_is_the_best_of_all_over_all_windows(longest: int, seed: int):
    windows = [window(3, 0, 4, seed), window(3, 2, 6, seed + 100, extra=5)]
    _, start, end = max(all_spans(windows, longest))
    assert best_span(windows, longest=longest)[:2] == (start, end)


def test_equal_spans_are_decided_for_the_first():
    flat = WindowLogits(Window(1, OFFSETS), np.zeros(8), np.zeros(8))
    assert best_span([flat, flat]).text(CONTEXT) == "to"


def test_a_score_is_the_probability_of_start_and_end_among_the_context_and_the_first_token():
    one = window(3, 0, 4, seed=0)
    span = best_span([one])
    among = [0, 3, 4, 5, 6]
    i, j = OFFSETS[:4, 0].tolist().index(span.start), OFFSETS[:4, 1].tolist().index(span.end)
    p, q = (np.exp(logits[among]) / np.exp(logits[among]).sum() for logits in (one.start, one.end))
    assert span.score == pytest.approx(p[1 + i] * q[1 + j])


def test_no_answer_is_given_only_where_there_may_be_none():
    sure = WindowLogits(Window(1, OFFSETS), np.eye(8)[0] * 9, np.eye(8)[0] * 9)
    assert best_span([sure]).text(CONTEXT) == "to"
    none = best_span([sure], may_lack_answer=True)
    assert none.text(CONTEXT) == "" and none.score > 0.99


def test_one_window_that_sees_an_answer_suffices():
    blind = WindowLogits(Window(1, OFFSETS[:2]), np.eye(4)[0] * 9, np.eye(4)[0] * 9)
    sees = WindowLogits(Window(1, OFFSETS[2:]), np.eye(6)[2] * 5, np.eye(6)[3] * 5)
    assert best_span([blind, sees], may_lack_answer=True).text(CONTEXT) == "not to"


def test_a_window_without_context_answers_nothing():
    empty = WindowLogits(window_of([None, 0, None], [(0, 0)] * 3), np.zeros(3), np.zeros(3))
    assert best_span([empty]) == AnswerSpan(0, 0, 1.0)
    assert best_span([empty, window(3, 0, 4, seed=1)]).end > 0


def test_a_window_is_found_by_the_texts_that_its_tokens_are_from():
    found = window_of([None, 0, 0, None, 1, 1, None], [(0, 0), (0, 1), (2, 3), (0, 0), (5, 7), (8, 9), (0, 0)])
    assert found.first == 4 and found.offsets.tolist() == [[5, 7], [8, 9]]


@pytest.mark.parametrize("start", range(len(WORDS)))
@pytest.mark.parametrize("end", range(len(WORDS)))
def test_tokens_of_a_span_are_those_that_give_it_back(start: int, end: int):
    part = Window(4, OFFSETS[1:5])
    first, last = token_span(part, int(OFFSETS[start, 0]), int(OFFSETS[end, 1]))
    if 1 <= start <= end < 5:
        assert (first, last) == (4 + start - 1, 4 + end - 1)
    else:
        assert (first, last) == (0, 0)


def test_a_span_within_a_token_is_that_token():
    assert token_span(Window(2, OFFSETS), OFFSETS[3, 0] + 1, OFFSETS[3, 1] - 1) == (5, 5)


def test_spaces_around_an_answer_are_left_out():
    assert AnswerSpan(2, 6, 1.0).text(CONTEXT) == "be"
