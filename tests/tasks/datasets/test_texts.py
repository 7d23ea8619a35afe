"""Own data of embedders: texts without labels suffice to train, and only pairs with a score are measured on."""

import numpy as np
import pandas as pd
import pytest

from whet import load_task
from whet.errors import InvalidData
from whet.tasks.data import Batches

PAIRS = pd.DataFrame({"a": ["w5 w6", "w7", "w8 w9"], "b": ["w5", "w7 w8", "w9"], "score": [1, 4.5, 3]})
TEXTS = pd.DataFrame({"text": [f"w{5 + i} w{6 + i}" for i in range(40)]})


def test_texts_alone_have_neither_labels_nor_metrics(tokenizer):
    task = load_task(train_file=TEXTS, kind="embedding")
    assert (task.kind.name(), task.metrics, task.label_names) == ("embedding", (), None)
    train, validation, dev = task.splits
    assert (len(train), len(validation), len(dev)) == (38, 2, 0)
    [row, *_] = train.encode(tokenizer, max_length=8).rows
    assert "labels" not in row
    assert task.unlabeled().splits.train.texts == train.texts


def test_texts_alone_are_refused_where_something_is_measured():
    with pytest.raises(InvalidData, match=r"must be measured on pairs of sentences with a score, but got texts alone"):
        _ = load_task(dev_file=TEXTS, kind="embedding").splits


def test_pairs_are_scored_by_the_cosine_of_their_sides(tokenizer):
    task = load_task(dev_file=PAIRS, kind="embedding", text="a", text_pair="b", label="score")
    assert task.metrics == ("spearman", "pearson")
    dev = task.splits.dev
    assert list(dev.labels) == [1, 4.5, 3]
    rows, owners, notes = dev.encode(tokenizer, max_length=8)
    assert (len(rows), owners) == (6, [0, 0, 1, 1, 2, 2])
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    batches = Batches([], np.asarray(dev.labels), owners=np.asarray(owners), source=dev, notes=notes)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    np.testing.assert_allclose(dev.compared(vectors, batches), cosines)


def test_without_their_labels_both_sides_of_pairs_are_texts():
    task = load_task(train_file=PAIRS, kind="embedding", text="a", text_pair="b", label="score").unlabeled()
    assert sorted([*task.splits.train.texts, *task.splits.validation.texts]) == sorted([*PAIRS.a, *PAIRS.b])
    with pytest.raises(InvalidData, match="--train-file must be given"):
        load_task(dev_file=PAIRS, kind="embedding", text="a", text_pair="b", label="score").unlabeled()


def test_a_score_that_is_no_number_is_refused():
    bad = PAIRS.assign(score=["1", "high", "3"])
    with pytest.raises(InvalidData, match=r"must be finite numbers, but got 'high' in row 2"):
        _ = load_task(dev_file=bad, kind="embedding", text="a", text_pair="b", label="score").splits
