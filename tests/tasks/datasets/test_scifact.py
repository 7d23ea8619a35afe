"""Retrieval data as tasks: for embedders and for rerankers, published and a user's own."""

import json

import pytest

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.base import task_named
from whet.tasks.kinds.base import kind_named
from whet.tasks.own_data import task_from_files
from whet.tasks.retrieval import Candidates, Retrieval

ROWS = [("q1", "a", 1.0), ("q2", "b", 0.0), ("q1", "c", 0.0), ("q2", "a", 2.0)]


def write(folder, *, splits=("train", "test"), candidates=False):
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "text": f"document {i}"} for i in range(20)] + [{"_id": "e", "text": ""}]
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(12)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for start, split in enumerate(splits):
        own = range(5 * start, 5 * start + 5)
        judged = [f"q{i}\td{i}\t1" for i in own]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
        if candidates:
            (folder / "candidates").mkdir(exist_ok=True)
            found = [f"q{i}\td{j}" for i in own for j in range(15)]
            (folder / "candidates" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id", *found]))
    return folder


def test_an_embedder_searches_the_whole_corpus(tmp_path, capsys):
    task = task_named("retrieval", data_dir=write(tmp_path / "data"))
    train, dev = task.read()
    assert (task.kind.name(), task.metrics[0]) == ("embedding", "ndcg@10")
    assert isinstance(dev, Retrieval) and dev.whole and len(dev.corpus) == 21
    assert (train.texts, dev.texts) == ([f"query {i}" for i in range(5)], [f"query {i}" for i in range(5, 10)])
    said = capsys.readouterr().err
    assert "2 of 12 queries have no judgments and are left out" in said
    assert "1 of 21 documents are empty; they are ranked as they are" in said


def test_a_reranker_orders_candidates(tmp_path):
    task = task_named("retrieval", data_dir=write(tmp_path / "data", candidates=True)).for_kind(kind_named("reranking"))
    train, dev = task.read()
    assert (task.kind.name(), task.metrics) == ("reranking", ("ndcg@10", "mrr@10"))
    assert isinstance(dev, Candidates)
    assert {len(own) for own in dev.pairs} == {15}
    assert {len(own) for own in train.pairs} == {8}  # the relevant one and the seven best others


def test_without_judged_training_queries_documents_are_texts_to_calibrate_by(tmp_path, tokenizer):
    train, _ = task_named("retrieval", data_dir=write(tmp_path / "data", splits=["test"])).read()
    assert len(train) == 21
    assert len(train.brief().encode(tokenizer, max_length=8).rows) == 21


def test_data_without_a_test_split_are_refused(tmp_path):
    task = task_named("retrieval", data_dir=write(tmp_path / "data", splits=["train"]))
    with pytest.raises(InvalidData, match=r"must hold qrels/test\.tsv"):
        task.read()


def test_scifact_has_its_known_sizes(data_dir):
    train, dev = task_named("scifact", data_dir=data_dir).read()
    assert (len(train), len(dev), len(dev.corpus)) == (809, 300, 5183)
    assert sum(map(len, dev.labels)) == 339


@pytest.mark.parametrize("pair", [None, "second"])
def test_own_rows_are_queries_with_candidates(pair):
    first, second = ("query", "text") if pair is None else ("first", pair)
    rows = [{first: query, second: text, "label": gain} for query, text, gain in ROWS]
    given = {"text": "text"} if pair is None else {"text": "first", "text_pair": pair}
    task = task_from_files(rows, rows, kind="reranking", **given)
    train, dev = task.read()
    assert (
        train
        == dev
        == Candidates(["q1", "q2"], [{0: 0.0, 1: 1.0}, {0: 0.0, 1: 2.0}], [("c", "a"), ("b", "a")], most=2.0)
    )
    assert task.metrics == ("ndcg@10", "mrr@10")


def test_relevance_that_is_no_number_is_refused():
    rows = [{"query": "q", "text": "a", "label": "yes"}]
    with pytest.raises(InvalidData, match="must be finite numbers, but got 'yes' in row 1"):
        task_from_files(rows, kind="reranking", text="text").read()


def test_only_metrics_of_rankings_count():
    rows = [{"query": "q", "text": "a", "label": 1}]
    assert task_from_files(rows, kind="reranking", text="text", metric="mrr@10").metrics == ("mrr@10", "ndcg@10")
    with pytest.raises(InvalidParameter, match="--metric must score"):
        task_from_files(rows, kind="reranking", text="text", metric="accuracy")
