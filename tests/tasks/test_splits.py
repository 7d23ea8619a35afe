"""Which texts hold others."""

import numpy as np
import pytest

from whet.tasks.splits import overlaps


def naively(texts):
    def holds(words, run):
        return len(run) < len(words) and any(words[at : at + len(run)] == run for at in range(len(words)))

    found = {text: {other for other in texts if other and holds(text, other)} for text in texts}
    return {text: held for text, held in found.items() if held}


def test_overlaps_agree_with_a_search_over_all_pairs():
    rng = np.random.default_rng(0)
    texts = [tuple(rng.choice(list("abc"), size=length)) for length in rng.integers(0, 14, size=120)]
    texts += [text[2:] for text in texts[:40]] + [text[:9] for text in texts[:40]] + texts[:20]
    assert overlaps(texts) == naively(texts) != {}


@pytest.mark.parametrize("seed", range(30))
def test_overlaps_agree_for_texts_of_few_words_that_repeat_themselves(seed):
    rng = np.random.default_rng(seed)
    words = list("abc"[: 1 + seed % 3])
    texts = [tuple(rng.choice(words, size=length).tolist()) for length in rng.integers(0, 12, size=40)]
    texts += [text * 3 for text in texts[:8]] + [text[1:-1] for text in texts[:8]]
    assert overlaps(texts) == naively(texts)


def test_no_texts_have_no_overlaps():
    assert overlaps([]) == overlaps([()]) == overlaps([("a",)]) == {}


@pytest.mark.timeout(20)
def test_repetitive_texts_take_no_longer_than_others():
    texts = [("a",) * length for length in (*range(1, 400), 40_000, 39_999)] + [("a", "b") * 20_000]
    found = overlaps(texts)
    assert {len(text): len(inside) for text, inside in found.items() if text[-1] == "a"} == {
        **{length: length - 1 for length in range(2, 400)}, 39_999: 399, 40_000: 400,
    }  # fmt: skip
    assert found[("a", "b") * 20_000] == {("a",)}


def test_words_are_compared_whole_and_in_their_order():
    texts = [("a", "good", "film"), ("film", "good"), ("goo",), ("good", "film"), ("a", "film")]
    assert overlaps(texts) == {("a", "good", "film"): {("good", "film")}}


def test_equal_texts_and_texts_that_begin_alike_are_fast():
    same = ("this", "review", "of", "a", "customer", "says", "that", "it")
    texts = [("ok",)] * 100_000 + [(*same, str(i)) for i in range(20_000)] + [(*same, "7", "is", "ok")]
    assert overlaps(texts) == {(*same, "7", "is", "ok"): {(*same, "7"), ("ok",)}}
