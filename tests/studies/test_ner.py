"""The study of taggers makes, measures and writes all that it says, and a second run makes nothing anew."""

import json

import pytest

from folders import save, tagger
from studied import ROWS, forbid_making, runner, small_study

SENTENCES = "w5\tB-person\nw6\tI-person\nw70\tO\n\t\nw30\tB-location\nw80\tO\n\t\nw90\tO\nw95\tO\n\t\n"


@pytest.fixture
def study(tmp_path, monkeypatch):
    module = small_study("ner", tmp_path, monkeypatch)
    monkeypatch.setattr(module.glue, "CURVES", tmp_path / "fine_tuning.json")
    monkeypatch.setattr(module.glue, "FINE_TUNING", {"wnut17": [{"epochs": 1, "learning_rate": 1e-3}]})
    return module


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    save(tagger().base_model, tokenizer, tmp_path / "base")
    for name in ("wnut17train.conll", "emerging.test.annotated"):
        (tmp_path / name).write_text(SENTENCES * 10)
    run = runner(study, tmp_path, monkeypatch)
    run("--tasks", "wnut17")
    rows = json.loads((tmp_path / "results.json").read_text())["wnut17"]
    assert [row["name"] for row in rows] == ROWS
    table = (tmp_path / "results.md").read_text()
    assert "| dense | PyTorch |" in table and "corporation | creative-work | group | location | person" in table
    assert (tmp_path / "results.png").stat().st_size > 1000
    forbid_making(monkeypatch)
    run("--tasks", "wnut17", "--make-only")
