"""The kind of own data is said, or told by files and metric; what contradicts it is refused before data are read."""

import re
from pathlib import Path

import pandas as pd
import pytest

import whet
from whet.errors import InvalidData, InvalidParameter, UnknownName
from whet.tasks.kinds.base import kind_named

ABSENT = Path("nowhere")


@pytest.mark.parametrize(
    ("file", "options", "kind"),
    [
        ("train.csv", {}, "classification"),
        ("train.csv", {"metric": "pearson"}, "regression"),
        ("train.csv", {"kind": "regression"}, "regression"),
        ("train.csv", {"kind": "token_classification"}, "token_classification"),
        ("train.conll", {}, "token_classification"),
        ("train.iob.gz", {}, "token_classification"),
        ("train.txt", {}, "classification"),
        ("train.txt", {"kind": "token_classification"}, "token_classification"),
        ("train.jsonl", {"metric": "entity_f1"}, "token_classification"),
    ],
)
def test_files_metric_and_user_tell_the_kind(file, options, kind):
    assert whet.load_task(train_file=ABSENT / file, **options).kind.name() == kind
    assert whet.load_task(dev_file=ABSENT / file, **options).kind.name() == kind


@pytest.mark.parametrize(
    ("file", "options", "refusal"),
    [
        (
            "a.conll",
            {"metric": "accuracy"},
            "--metric must score token_classification, but got accuracy; give",
        ),
        (
            "a.csv",
            {"kind": "regression", "metric": "accuracy"},
            "--metric must score regression, but got accuracy",
        ),
        (
            "a.csv",
            {"kind": "classification", "metric": "entity_f1"},
            "--metric must score classification, but got",
        ),
        (
            "a.conll",
            {"text_pair": "other"},
            "--text-pair must go with data of reranking",
        ),
    ],
)
def test_what_contradicts_the_kind_is_refused(file, options, refusal):
    with pytest.raises(InvalidParameter, match=re.escape(refusal)):
        whet.load_task(train_file=ABSENT / file, **options)


def test_the_model_says_the_kind_of_data_where_nothing_else_does():
    """With the columns that the user names; and not against what the user, an ending or a metric says."""
    embedding = kind_named("embedding")
    found = whet.load_task(train_file=ABSENT / "a.csv", text="first", text_pair="second").for_kind(embedding)
    assert (found.kind.name(), found.text, found.text_pair) == ("embedding", "first", "second")
    for file, options in (("a.csv", {"kind": "classification"}), ("a.csv", {"metric": "f1"}), ("a.conll", {})):
        task = whet.load_task(train_file=ABSENT / file, **options)
        with pytest.raises(InvalidData, match="as your data ask, but it is a model of sentence embeddings"):
            task.for_kind(embedding)
    with pytest.raises(InvalidData, match="as your data ask, but it is a text classifier"):
        found.for_kind(kind_named("classification"))


@pytest.mark.parametrize("options", [{}, {"kind": "embedding"}])
def test_an_embedder_is_scored_by_the_metric_that_was_asked_for(options):
    task = whet.load_task(train_file=ABSENT / "a.csv", text_pair="second", metric="pearson", **options)
    assert task.for_kind(kind_named("embedding")).metrics == ("pearson", "spearman")
    with pytest.raises(InvalidParameter, match="must score embedding, but got f1; give spearman, pearson"):
        whet.load_task(train_file=ABSENT / "a.csv", text_pair="second", metric="f1", kind="embedding")


@pytest.mark.parametrize("name", ["sick-relatedness", "glue/stsb"])
def test_pairs_with_scores_serve_embedders_too(name):
    assert whet.load_task(name, data_dir=ABSENT, kind="embedding").kind.name() == "embedding"


def test_names_of_kinds_are_checked():
    with pytest.raises(UnknownName, match="did you mean token_classification"):
        whet.load_task(train_file=ABSENT / "a.csv", kind="token_clasification")
    with pytest.raises(InvalidParameter, match="must be that of the task, but got regression for agreement, which"):
        whet.load_task("agreement", kind="regression")
    assert whet.load_task("agreement", kind="classification").name == "agreement"


def test_scores_of_own_data_have_the_first_metric_of_their_kind():
    table = pd.DataFrame({"text": ["a", "b"] * 20, "label": [0.5, 1.5] * 20})
    task = whet.load_task(train_file=table, kind="regression")
    assert task.metrics == ("pearson",) and task.label_names is None and set(task.splits.train.labels) == {0.5, 1.5}
