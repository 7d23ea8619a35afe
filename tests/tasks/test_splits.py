"""Which texts hold others."""

import numpy as np

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


def test_words_are_compared_whole_and_in_their_order():
    texts = [("a", "good", "film"), ("film", "good"), ("goo",), ("good", "film"), ("a", "film")]
    assert overlaps(texts) == {("a", "good", "film"): {("good", "film")}}


def test_equal_texts_and_texts_that_begin_alike_are_fast():
    same = ("this", "review", "of", "a", "customer", "says", "that", "it")
    texts = [("ok",)] * 100_000 + [(*same, str(i)) for i in range(20_000)] + [(*same, "7", "is", "ok")]
    assert overlaps(texts) == {(*same, "7", "is", "ok"): {(*same, "7"), ("ok",)}}
