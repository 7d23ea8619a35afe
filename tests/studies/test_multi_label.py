"""The study of several labels makes and writes all that it says, and a second run makes nothing anew."""

import gzip
import json

import pytest

from folders import save
from helpers import tiny_model
from kinds import sentences
from studied import forbid_making, runner, small_study
from whet.api import cascading

LOW_RANK = [{"method": "svd", "keep": 0.5}]


@pytest.fixture
def study(tmp_path, monkeypatch):
    changed = {
        "STUDENT": "layer_subset:odd",
        "STUDENTS": {"student": LOW_RANK},
        "PACE": {"epochs": 1},
        "CASCADES": {"cascade": ("dense", 45.0)},
    }
    module = small_study("multi_label", tmp_path, monkeypatch, **changed)
    monkeypatch.setattr(cascading, "_require_faster_first", lambda *_: None)  # it is the dense model twice
    monkeypatch.setattr(module.glue, "FINE_TUNING", {"goemotions": [{"epochs": 1}]})
    monkeypatch.setattr(module.glue, "CURVES", tmp_path / "fine_tuning.json")
    return module


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    for seed, (split, count) in enumerate((("train", 120), ("test", 12))):
        lines = (f"{text}\t{i % 28},{(i + 1) % 28}\tid" for i, text in enumerate(sentences(count, seed=seed)))
        (tmp_path / f"{split}.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    run = runner(study, tmp_path, monkeypatch)
    run()
    [rows] = json.loads((tmp_path / "results.json").read_text()).values()
    models = ["dense", "svd", "student", "cascade"]
    assert [row["name"] for row in rows] == [*models, *(f"{name} (onnxruntime int8)" for name in models)]
    assert rows[0]["measurements"][0]["metric"] == "micro_f1" and rows[0]["measurements"][0]["n"] == 12
    table = (tmp_path / "results.md").read_text()
    assert "| model | where | macro_label_f1 | mean_average_precision |" in table
    assert (tmp_path / "results.png").stat().st_size > 1000
    forbid_making(monkeypatch)
    run("--make-only")
    (tmp_path / "results.md").unlink()
    run("--tasks")
    assert (tmp_path / "results.md").read_text() == table
