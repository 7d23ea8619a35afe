import time
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer

from whet.tasks.base import task_named
from whet.tasks.datasets._grammar import grammar_words, sentences
from whet.tasks.datasets.agreement import DEV, TRAIN, SubjectVerbAgreement, tokenizer


@pytest.fixture(scope="module")
def task():
    return task_named("agreement")


@pytest.fixture(scope="module")
def official(task):
    return task.read()


def pairs(examples):
    """The twins, acceptable first."""
    assert list(examples.labels) == [1, 0] * (len(examples) // 2)
    return list(zip(examples.texts[::2], examples.texts[1::2], strict=True))


def test_the_data_have_the_documented_size_and_no_sentence_twice(official):
    train, dev = official
    assert (len(train), len(dev)) == (TRAIN, DEV)
    assert len(set(train.texts) | set(dev.texts)) == TRAIN + DEV


def test_twins_differ_in_exactly_one_word(official):
    for examples in official:
        for good, bad in pairs(examples):
            assert sum(a != b for a, b in zip(good.split(), bad.split(), strict=True)) == 1


def test_sentences_are_lower_case_words_and_a_final_period(official):
    known = set(grammar_words())
    for examples in official:
        for text in examples.texts:
            words = text.split(" ")
            assert set(words) <= known
            assert text == text.lower()
            assert words[-1] == "." and words.count(".") == 1
            assert 5 <= len(words) - 1 <= 16


def test_twins_stay_in_one_split(task):
    splits = task.splits
    for examples in splits:
        pairs(examples)
    parts = [set(examples.texts) for examples in splits]
    assert sum(map(len, parts)) == len(set.union(*parts)) == TRAIN + DEV
    assert len(splits.validation) == 1000


def test_the_data_are_the_same_every_time(official):
    again = SubjectVerbAgreement(name="agreement").read()
    assert again == official


def test_single_words_do_not_reveal_the_label(official):
    """Neither seen nor unseen sentences: what a bag of words learns is noise."""
    train, dev = official
    count = CountVectorizer(token_pattern=r"\S+")
    words = count.fit_transform(train.texts)
    model = LogisticRegression(max_iter=300).fit(words, train.labels)
    assert model.score(words, train.labels) < 0.55
    assert model.score(count.transform(dev.texts), dev.labels) < 0.55


def test_a_word_is_as_frequent_in_either_class(official):
    train, _ = official
    good, bad = (Counter(word for text in train.texts[i::2] for word in set(text.split())) for i in (0, 1))
    for word in grammar_words():
        # of n sentences with the word, half are good; six standard deviations of a coin leave room for 150 words
        assert abs(good[word] - bad[word]) <= 6 * np.sqrt(good[word] + bad[word])


def test_generation_takes_less_than_two_seconds():
    start = time.process_time()
    sentences(TRAIN + DEV, seed=1)
    assert time.process_time() - start < 2


def test_the_tokenizer_is_shaped_like_berts(official):
    words = tokenizer()
    assert words.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert len(words) == len(grammar_words()) + 5
    assert (words.model_max_length, words.padding_side, words.pad_token_id) == (64, "right", 0)
    encoded = words("The king is old .", "no zebra")
    assert words.convert_ids_to_tokens(encoded["input_ids"]) == (
        ["[CLS]", "the", "king", "is", "old", ".", "[SEP]", "no", "[UNK]", "[SEP]"]
    )
    assert encoded["token_type_ids"] == [0] * 7 + [1] * 3
    assert list(encoded) == ["input_ids", "token_type_ids", "attention_mask"]
    ids = words(official[1].texts)["input_ids"]
    assert not any(1 in row for row in ids)
    assert words.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == official[1].texts


def test_the_tokenizer_survives_saving(tmp_path, official):
    words = tokenizer()
    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    options = {"padding": True, "truncation": True, "max_length": 8}
    assert dict(again(official[1].texts, **options)) == dict(words(official[1].texts, **options))
    assert (again.model_max_length, again.pad_token, again.padding_side) == (64, "[PAD]", "right")
