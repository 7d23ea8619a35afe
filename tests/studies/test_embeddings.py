"""The study of embedders makes, measures and writes all that it says, and a second run makes nothing anew."""

import json

import numpy as np
import pytest

import whet
from kinds import sentences
from retrieval_data import write_retrieval
from sentences import sentence_folder
from studied import ROWS, forbid_making, runner, small_study
from whet.tasks import Retrieval, SentencePairs
from whet.tasks.similarity import InSet


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study with tiny texts and tiny tasks in the place of the real ones."""
    changed = {
        "MAX_LENGTH": 24,
        "CALIBRATION": whet.Calibration(examples=16, batch_size=8, max_length=24),
        "texts": lambda data_dir: sentences(60, seed=0),
    }
    module = small_study("embeddings", tmp_path, monkeypatch, **changed)
    scifact = whet.load_task("retrieval", data_dir=write_retrieval(tmp_path / "scifact")).splits.dev
    assert isinstance(scifact, Retrieval)
    first, second = sentences(30, seed=1), sentences(30, seed=2)
    pairs = SentencePairs(first, [InSet(f"{2012 + i % 2}", float(i % 6)) for i in range(30)], second)
    data = module.measuring.Data(pairs, scifact)
    monkeypatch.setattr(module.measuring.Data, "read", classmethod(lambda cls, data_dir: data))
    return module


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    sentence_folder(tmp_path / "base", tokenizer)
    run = runner(study, tmp_path, monkeypatch)
    run("--only", "dense", "svd")
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == ROWS
    assert found["dense"]["speedup"] is None and found["svd"]["speedup"]["value"] > 0
    assert [one["metric"] for one in found["svd"]["qualities"]] == ["sts_average", "ndcg@10", "recall@100"]
    assert found["svd"]["qualities"][0]["versus"] is not None
    table = (tmp_path / "results.md").read_text()
    assert table.count("\n") == 2 + len(ROWS) and "| svd | ONNX Runtime int8 |" in table
    forbid_making(monkeypatch)
    run("--only", "dense", "svd", "--make-only")
    (tmp_path / "results.md").unlink()
    run("--only")
    assert (tmp_path / "results.md").read_text() == table


def test_static_vectors_are_one_more_row(study, tmp_path, tokenizer, monkeypatch):
    """model2vec is in no extra, so that a function takes the place of what it loads."""
    sentence_folder(tmp_path / "base", tokenizer)
    monkeypatch.setattr(
        study, "static", lambda folder: (lambda texts: np.array([[len(t), t.count(" ")] for t in texts]), 0.5)
    )
    run = runner(study, tmp_path, monkeypatch)
    run("--only", "dense", "--static", str(tmp_path / "words"), "--results", "static")
    table = (tmp_path / "static.md").read_text()
    assert "| words | static vectors | " in table and (tmp_path / "static.png").is_file()
