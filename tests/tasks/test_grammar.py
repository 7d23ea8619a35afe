from whet.tasks.datasets._grammar import grammar_words, minimal_pairs, sentences


def test_a_seed_gives_the_same_pairs_and_another_gives_others():
    assert minimal_pairs(200, seed=3) == minimal_pairs(200, seed=3)
    assert not set(sentences(200, seed=3)) & set(sentences(200, seed=4)[:20])


def test_sentences_are_the_pairs_in_turn():
    pairs = minimal_pairs(50, seed=0)
    made = sentences(100, seed=0)
    assert [(a.text, b.text) for a, b in zip(made[::2], made[1::2], strict=True)] == [tuple(pair) for pair in pairs]
    assert [sentence.label for sentence in made] == [1, 0] * 50


def test_every_rule_is_tested_with_and_against_a_distractor():
    texts = {sentence.text for sentence in sentences(24_000, seed=0) if sentence.label}

    def some(*, has, start="", lacks=()):
        return any(
            text.startswith(start)
            and all(f" {word} " in f" {text}" for word in has)
            and not any(f" {word} " in f" {text}" for word in lacks)
            for text in texts
        )

    assert some(has=("that", "girls", "himself"))
    assert some(has=("that", "no", "already"), start="the ")
    assert some(has=("that", "few", "some"), start="the ")
    assert some(has=("that", "ever"), start="no ")
    assert some(has=("not", "any"), start="the ", lacks=("no", "few", "had"))


def test_the_vocabulary_is_exactly_what_occurs():
    made = sentences(24_000, seed=0)
    assert {word for sentence in made for word in sentence.text.split()} == set(grammar_words())
    assert list(grammar_words()) == sorted(set(grammar_words()))
