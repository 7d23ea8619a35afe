"""Candidates for rerankers, from an embedding model, and what embedders do on the same data."""

import numpy as np
import pytest

import whet
from folders import save
from helpers import tiny_model
from retrieval_data import write_retrieval
from sentences import sentence_folder
from whet.errors import InvalidModel, OutputExists
from whet.tasks.base import task_named
from whet.tasks.kinds.base import kind_named

QUICK = whet.Benchmark(rounds=6, singles=2, timed=8, max_length=24, metrics=("fidelity", "size", "latency"))


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("retrieval")
    write_retrieval(root / "data")
    sentence_folder(root / "embedder", tokenizer)
    whet.make_candidates(root / "embedder", root / "data", root / "candidates", count=6)
    return root


def test_candidates_are_the_documents_that_the_embedder_finds_first(root):
    whole = task_named("retrieval", data_dir=root / "data").splits.dev
    task = task_named("retrieval", data_dir=root / "candidates").for_kind(kind_named("reranking"))
    trial = whet.measure([root / "embedder"], task_named("retrieval", data_dir=root / "data"), benchmark=QUICK)[0]
    found = {one.metric: one.value for one in trial.measurements}
    dev = task.splits.dev
    assert dev.texts == whole.texts and {len(own) for own in dev.pairs} == {6}
    first_six = [any(number < 6 for number in judged) for judged in dev.labels]
    assert found["recall@10"] >= np.mean(first_six)
    train = task.read()[0]
    assert all(1 <= len(own) <= 8 for own in train.pairs)


def test_an_embedder_is_measured_and_compressed_on_retrieval_data(root):
    task = whet.load_task("retrieval", data_dir=root / "data")
    few = whet.Calibration(examples=16, batch_size=8, max_length=24)
    recipe = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])
    whet.compress(root / "embedder", recipe, root / "small", task=task, calibration=few)
    dense, small = whet.measure([root / "embedder", root / "small"], task, benchmark=QUICK)
    metrics = [one.metric for one in small.measurements]
    assert metrics[:4] == ["ndcg@10", "mrr@10", "recall@10", "recall@100"]
    assert small.measurements[0].n == 20, "queries are resampled"
    assert small.measurements[0].versus is not None and dense.measurements[0].versus is None
    assert next(one.value for one in small.measurements if one.metric == "kl") > 0


def test_the_folder_is_written_once(root):
    with pytest.raises(OutputExists):
        whet.make_candidates(root / "embedder", root / "data", root / "candidates")


def test_only_embedders_search(root, tokenizer, tmp_path):
    save(tiny_model("bert"), tokenizer, tmp_path / "classifier")
    with pytest.raises(InvalidModel, match="candidates must come from a model of sentence embeddings, but"):
        whet.make_candidates(tmp_path / "classifier", root / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()
