import itertools
import re

import numpy as np
import pytest

from helpers import word_tokenizer
from whet.errors import InvalidData, InvalidModel
from whet.tasks import questions
from whet.tasks.data import ANSWERED
from whet.tasks.encoding import encode, pad_batches
from whet.tasks.questions import Questions
from whet.tasks.spans import overlap

CONTEXT = " ".join(f"w{i}" for i in range(5, 55))
ANSWER = "w40 w41 w42"
QUESTIONS = Questions(["w5 w6", "w9"], [((ANSWER, CONTEXT.index(ANSWER)), ("w7", 4)), ()], [CONTEXT, "w5 w6 w7"])
MAX_LENGTH = 24


def test_windows_hold_all_of_a_context_and_overlap():
    encoded = QUESTIONS.encode(word_tokenizer(), max_length=MAX_LENGTH)
    assert encoded.owners == [0] * (len(encoded.owners) - 1) + [1] and len(encoded.owners) > 3
    for owner, context in enumerate(QUESTIONS.pairs):
        windows = [note for note, own in zip(encoded.notes, encoded.owners, strict=True) if own == owner]
        words = [[context[start:end] for start, end in window.offsets] for window in windows]
        assert set().union(*words) == set(context.split())
        for before, after in itertools.pairwise(words):
            assert before[-overlap(MAX_LENGTH) :] == after[: overlap(MAX_LENGTH)]


def test_the_first_token_and_those_of_the_context_are_answered():
    encoded = QUESTIONS.encode(word_tokenizer(), max_length=MAX_LENGTH)
    for row, window in zip(encoded.rows, encoded.notes, strict=True):
        context = range(window.first, window.first + len(window.offsets))
        assert [i for i, answered in enumerate(row[ANSWERED]) if answered] == [0, *context]
        assert len(row[ANSWERED]) == len(row["input_ids"]) <= MAX_LENGTH


def test_a_window_learns_the_first_answer_if_it_holds_all_of_it_and_else_the_first_token():
    encoded = QUESTIONS.encode(word_tokenizer(), max_length=MAX_LENGTH)
    learned = []
    for row, owner, window in zip(encoded.rows, encoded.owners, encoded.notes, strict=True):
        start, end = row["start_positions"], row["end_positions"]
        context = QUESTIONS.pairs[owner]
        words = context[window.offsets[0, 0] : window.offsets[-1, 1]]
        if owner == 0 and ANSWER in words:
            offsets = window.offsets
            assert context[offsets[start - window.first, 0] : offsets[end - window.first, 1]] == ANSWER
            learned.append(owner)
        else:
            assert (start, end) == (0, 0)
    assert learned


def test_positions_are_no_inputs_of_a_batch():
    rows = QUESTIONS.encode(word_tokenizer(), max_length=MAX_LENGTH).rows
    [batch] = pad_batches(rows, word_tokenizer(), batch_size=len(rows))
    assert not {"start_positions", "end_positions"} & batch.keys()
    assert batch[ANSWERED].shape == batch["input_ids"].shape


def test_batches_know_the_question_of_each_window():
    batches = encode(QUESTIONS, word_tokenizer(), max_length=MAX_LENGTH, batch_size=2)
    assert batches.owners.tolist() == QUESTIONS.encode(word_tokenizer(), max_length=MAX_LENGTH).owners
    assert batches.labels.tolist() == list(QUESTIONS.labels)
    assert len(batches.notes) == len(batches.owners)


def test_labels_of_equal_length_stay_one_object_each():
    two = Questions(["w5", "w6"], [(("w7", 0),), (("w8", 3),)], ["w7 w8"] * 2)
    labels = encode(two, word_tokenizer(), max_length=MAX_LENGTH, batch_size=2).labels
    assert labels.shape == (2,) and labels.tolist() == [(("w7", 0),), (("w8", 3),)]


def test_some_questions_keep_their_answers_and_settings():
    some = Questions(QUESTIONS.texts, QUESTIONS.labels, QUESTIONS.pairs, longest_answer=4).take(np.array([1]))
    assert isinstance(some, Questions) and some.longest_answer == 4
    assert list(some.labels) == [()] and list(some.pairs) == ["w5 w6 w7"]
    assert some.joined(QUESTIONS).digest() != QUESTIONS.digest() == QUESTIONS.take([0, 1]).digest()


def test_nothing_of_a_context_is_cut():
    assert QUESTIONS.cut_share(word_tokenizer(), max_length=MAX_LENGTH) == 0


def test_a_question_that_leaves_no_room_is_refused():
    long = Questions(["w5 " * 12, "w5 " * 13, "w5"], [(), (), ()], [CONTEXT] * 3)
    message = "each question must have 12 tokens at most to leave room for its context in windows of 24, but 1 of 3"
    with pytest.raises(InvalidData, match=re.escape(message) + r" have up to 13; give a larger max_length"):
        long.encode(word_tokenizer(), max_length=MAX_LENGTH)
    assert long.take([0]).encode(word_tokenizer(), max_length=MAX_LENGTH).rows


def test_a_tokenizer_without_offsets_is_refused(monkeypatch):
    tokenizer = word_tokenizer()
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(InvalidModel, match=r"^the tokenizer of a question answerer must know where its tokens lie"):
        QUESTIONS.encode(tokenizer, max_length=MAX_LENGTH)


def test_many_questions_are_encoded_in_parts(monkeypatch):
    whole = QUESTIONS.joined(QUESTIONS).encode(word_tokenizer(), max_length=MAX_LENGTH)
    monkeypatch.setattr(questions, "AT_ONCE", 3)
    parts = QUESTIONS.joined(QUESTIONS).encode(word_tokenizer(), max_length=MAX_LENGTH)
    assert parts.rows == whole.rows and parts.owners == whole.owners
    assert all((a.offsets == b.offsets).all() for a, b in zip(parts.notes, whole.notes, strict=True))


def test_no_questions_are_no_inputs():
    assert QUESTIONS.take([]).encode(word_tokenizer(), max_length=MAX_LENGTH).rows == []
