"""Rerankers: recognition, the loss that they are trained with, rankings of candidates."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from helpers import tiny_model
from whet.errors import InvalidData
from whet.models.checkpoint import KIND
from whet.models.inference import kind_of_model, outputs_with_loss, predict
from whet.tasks.data import Batches
from whet.tasks.encoding import encode, pad
from whet.tasks.kinds.base import Answers, kind_named
from whet.tasks.retrieval import Candidates

QUERIES = Candidates(
    ["w10", "w20 w21"], [{1: 1.0, 2: 0.5}, {0: 1.0, 7: 1.0}], [("w11 w12", "w13", "w14 w15 w16"), ("w22", "w23 w24")]
)


@pytest.fixture
def reranker():
    model = tiny_model("bert", 1)
    setattr(model.config, KIND, "reranking")
    return model


def test_a_head_with_one_output_is_a_reranker_if_that_is_said(reranker):
    assert kind_of_model(reranker) is kind_named("reranking")
    assert kind_of_model(tiny_model("bert", 1)) is kind_named("regression")


def test_it_learns_relevance_by_the_cross_entropy(reranker, tokenizer):
    rows = QUERIES.encode(tokenizer, max_length=16).rows
    batch = pad(rows, tokenizer)
    outputs = outputs_with_loss(reranker, batch)
    expected = binary_cross_entropy_with_logits(outputs.logits[:, 0], batch["labels"].float())
    assert outputs.loss.item() == pytest.approx(expected.item())
    assert reranker.config.problem_type is None
    outputs.loss.backward()
    assert next(reranker.parameters()).grad is not None


def test_a_prediction_is_the_order_of_the_candidates(reranker, tokenizer):
    batches = encode(QUERIES, tokenizer, max_length=16, batch_size=2)
    found = kind_of_model(reranker).predictions(predict(reranker, batches), batches)
    for query, candidates, ranking in zip(QUERIES.texts, QUERIES.pairs, found, strict=True):
        inputs = tokenizer([query] * len(candidates), list(candidates), padding=True, return_tensors="pt")
        with torch.inference_mode():
            scores = reranker(**inputs).logits[:, 0].numpy()
        assert ranking.tolist() == np.argsort(-scores, kind="stable").tolist()


def test_single_texts_are_refused():
    answers = Answers(kind_named("reranking"), np.zeros((1, 1)), np.zeros(1, dtype=int))
    with pytest.raises(InvalidData, match="a reranker must be measured on queries with candidates"):
        kind_named("reranking").predictions(answers, Batches([], np.zeros(1)))
