"""Which texts hold others."""

import numpy as np

from whet.containment import contained


def naively(texts):
    def holds(words, run):
        return any(words[at : at + len(run)] == run for at in range(len(words) - len(run) + 1))

    return {(i, j) for i, a in enumerate(texts) for j, b in enumerate(texts) if i != j and b and holds(a, b)}


def test_it_finds_what_looking_at_all_pairs_finds():
    rng = np.random.default_rng(0)
    texts = [rng.choice(list("abc"), size=length).tolist() for length in rng.integers(0, 14, size=120)]
    texts += [text[2:] for text in texts[:40]] + [text[:9] for text in texts[:40]]
    assert set(contained(texts)) == naively(texts) != set()


def test_words_are_compared_whole_and_in_their_order():
    texts = [["a", "good", "film"], ["film", "good"], ["goo"], ["good", "film"], ["a", "film"]]
    assert contained(texts) == [(0, 3)]


def test_equal_texts_hold_each_other():
    assert contained([["a", "b"], ["a", "b"], []]) == [(0, 1), (1, 0)]
