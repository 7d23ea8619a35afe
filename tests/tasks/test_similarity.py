"""Pairs of sentences for models that embed each by itself."""

import copy

import numpy as np
import pytest

from whet.errors import InvalidData
from whet.tasks.encoding import encode, shortest_first
from whet.tasks.similarity import SentencePairs, unit_vectors

PAIRS = SentencePairs(["w10", "a w12 w11", "w10"], [5.0, 1.0, 3.0], ["w11", "w12", "the long w10 w11"])


def test_a_pair_is_one_example_and_two_inputs(tokenizer):
    rows, owners, sides = PAIRS.encode(tokenizer, max_length=16)
    assert (owners, sides) == ([0, 0, 1, 1, 2, 2], [0, 1] * 3)
    assert rows[2]["input_ids"] == tokenizer("a w12 w11")["input_ids"]
    assert rows[3]["input_ids"] == tokenizer("w12")["input_ids"]


def test_sentences_have_the_default_prompt(tokenizer):
    prompted = copy.copy(tokenizer)
    prompted.prompts, prompted.default_prompt = {"query": "w12 "}, "w10 "
    expected = tokenizer("w10 a w12 w11")["input_ids"]
    assert PAIRS.encode(prompted, max_length=16).rows[2]["input_ids"] == expected


def test_predictions_are_cosines_of_the_two_sides(tokenizer):
    examples = shortest_first(PAIRS, tokenizer, max_length=16)
    batches = encode(examples, tokenizer, max_length=16, batch_size=2)
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 3, 4))
    vectors = np.stack([first, second], axis=1).reshape(6, 4) * 7
    expected = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert examples.compared(vectors, batches) == pytest.approx(expected)


def test_the_batches_of_a_part_are_those_of_its_pairs(tokenizer):
    batches = encode(PAIRS, tokenizer, max_length=16, batch_size=2).only([1, 2])
    vectors = np.eye(4)
    assert batches.source.texts == ["a w12 w11", "w10"]
    assert batches.source.compared(vectors, batches).tolist() == [0.0, 0.0]


def test_a_vector_of_zeros_is_like_none():
    assert unit_vectors(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0, 0], [0.6, 0.8]]


def test_single_sentences_are_refused():
    with pytest.raises(InvalidData, match="compares pairs of sentences, but got single ones; give --text-pair"):
        SentencePairs(["a"], [1.0])


def test_a_pair_is_cut_if_one_side_is(tokenizer):
    assert PAIRS.cut_share(tokenizer, max_length=5) == pytest.approx(1 / 3)
