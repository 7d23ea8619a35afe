"""A tagger answers words: rows are first tokens, predictions are sentences, and lost words have no answer."""

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import TokenClassifierOutput

from whet.errors import InvalidData
from whet.tasks.data import ANSWERED
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import Answers, kind_named
from whet.tasks.words import NOT_ANSWERED, TaggedWords

KIND = kind_named("token_classification")
NAMES = ("O", "B-PER", "I-PER")


def test_rows_are_the_answered_tokens_in_order():
    logits = torch.arange(24.0).reshape(2, 4, 3)
    answered = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 0]])
    batch = {"attention_mask": torch.ones(2, 4, dtype=torch.long), ANSWERED: answered}
    rows = KIND.rows(TokenClassifierOutput(logits=logits), batch)
    assert rows.inputs.tolist() == [0, 0, 1]
    assert torch.equal(rows.logits, torch.stack([logits[0, 1], logits[0, 3], logits[1, 2]]))
    del batch[ANSWERED]
    assert len(KIND.rows(TokenClassifierOutput(logits=logits), batch).logits) == 8


def test_predictions_are_those_of_words_and_say_which_have_none(tokenizer):
    sentences = TaggedWords([("w5", "w6", "w7"), ("w8",), ("",), ("w9", "", "w5")], [(0,) * n for n in (3, 1, 1, 3)])
    batches = encode(sentences, tokenizer, max_length=4, batch_size=2)  # with room for two words
    decided = [1, 2, 0, 2, 1]
    answers = Answers(KIND, np.eye(3)[decided], np.array([0, 0, 1, 3, 3]))
    found = KIND.predictions(answers, batches)
    assert [list(tags) for tags in found] == [
        [1, 2, NOT_ANSWERED],
        [0],
        [NOT_ANSWERED],
        [2, NOT_ANSWERED, 1],
    ]


@pytest.mark.parametrize("head", [NAMES, NAMES[::-1]])
def test_a_head_is_paired_by_names(head):
    pairing = KIND.pairing(dict(enumerate(head)), NAMES, ordered=False)
    assert [head[i] for i in pairing.order] == list(NAMES) and pairing.note == ""
    assert KIND.renumbered([(0, 2), (1,)], pairing.order) == [
        tuple(head.index(NAMES[i]) for i in tags) for tags in [(0, 2), (1,)]
    ]


def test_a_head_without_b_answers_b_by_i():
    """As those that were trained on IOB1: an entity starts where I follows something else."""
    head = {0: "I-PER", 1: "O", 2: "I-LOC", 3: "B-LOC"}
    names = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    pairing = KIND.pairing(head, names, ordered=False)
    assert pairing.order == [1, 3, 2, 0, 0]
    assert pairing.note == "the model has no B-PER: entities of one type that touch are one to it"
    ordered = np.eye(4)[[0, 0, 1, 3, 2]][:, pairing.order]
    assert [names[tag] for tag in KIND.decisions(ordered)] == ["I-PER", "I-PER", "O", "B-LOC", "I-LOC"]
    assert KIND.renumbered([(3, 4, 0)], pairing.order) == [(0, 0, 1)]


def test_a_head_with_other_tags_is_refused():
    with pytest.raises(InvalidData, match=r"must have the task's classes O, B-PER, I-PER, but got num_labels=2"):
        KIND.pairing({0: "O", 1: "B-PER"}, NAMES, ordered=False)
    with pytest.raises(InvalidData, match=r"must know the labels O, B-PER, I-PER, but it knows O, B-LOC, I-LOC"):
        KIND.pairing({0: "O", 1: "B-LOC", 2: "I-LOC"}, NAMES, ordered=False)


def test_tags_of_one_kind_teach_nothing():
    with pytest.raises(InvalidData, match="must hold at least two tags, but got one only"):
        KIND.check_labels([(0, 0), (0,)], source="training data")
    KIND.check_labels([(0,), (1,)], source="training data")
