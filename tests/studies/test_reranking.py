"""The study of rerankers makes and writes all that it says, and a second run makes nothing anew."""

import json

import whet
from retrieval_data import write_retrieval
from sentences import sentence_folder
from studied import ROWS, forbid_making, runner, small_study


def test_a_study_of_tiny_data(tmp_path, tokenizer, monkeypatch):
    sentence_folder(tmp_path / "base", tokenizer)
    write_retrieval(tmp_path / "scifact_beir")
    changed = {
        "COUNT": 5,
        "CLAIMS": 12,
        "SETTINGS": whet.TrainingSettings(epochs=1, batch_size=4, max_length=24),
        "CALIBRATION": whet.Calibration(examples=8, batch_size=4, max_length=24),
    }
    run = runner(small_study("reranking", tmp_path, monkeypatch, **changed), tmp_path, monkeypatch)
    run()
    [rows] = json.loads((tmp_path / "results.json").read_text()).values()
    assert [row["name"] for row in rows] == ROWS
    assert rows[0]["measurements"][0]["metric"] == "ndcg@10" and rows[0]["measurements"][0]["n"] == 12
    forbid_making(monkeypatch)
    run("--make-only")
    run("--write-only")
    assert (tmp_path / "results.png").stat().st_size > 1000
