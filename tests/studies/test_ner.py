"""The study of taggers makes, measures and writes all that it says, and a second run makes nothing anew."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from folders import save, tagger
from whet.evaluation.metrics import latency

STUDY = Path(__file__).parents[2] / "studies" / "ner" / "run.py"
SENTENCES = "w5\tB-person\nw6\tI-person\nw70\tO\n\t\nw30\tB-location\nw80\tO\n\t\nw90\tO\nw95\tO\n\t\n"


def made_up_seconds(calls, *, rounds: int, **_) -> np.ndarray:
    """A replacement for `time_batches`: (rounds, batches, models) seconds."""
    return np.random.default_rng(0).uniform(1e-3, 2e-3, (rounds, len(calls), len(calls[0])))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study's module with two recipes, one other runtime, and everything written below a folder."""
    spec = importlib.util.spec_from_file_location("ner_run", STUDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RECIPES", {"dense": [], "svd": [{"method": "svd", "keep": 0.5}]})
    monkeypatch.setattr(module.glue, "CURVES", tmp_path / "fine_tuning.json")
    monkeypatch.setattr(module.glue, "FINE_TUNING", {"wnut17": [{"epochs": 1, "learning_rate": 1e-3}]})
    monkeypatch.setattr(latency, "time_batches", made_up_seconds)
    for name, value in (
        ("HERE_TOO", [("onnxruntime", "int8")]),
        ("RUNTIMES", ["onnxruntime"]),
        ("PRECISIONS", ["int8"]),
    ):
        monkeypatch.setattr(module.deployments, name, value)
    return module


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    save(tagger().base_model, tokenizer, tmp_path / "base")
    for name in ("wnut17train.conll", "emerging.test.annotated"):
        (tmp_path / name).write_text(SENTENCES * 10)
    words = [
        "run.py", "--base", str(tmp_path / "base"), "--data-dir", str(tmp_path), "--tasks", "wnut17",
        "--runs", str(tmp_path / "runs"), "--threads", "1", "--rounds", "6",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    study.main()
    rows = json.loads((tmp_path / "results.json").read_text())["wnut17"]
    assert [row["name"] for row in rows] == ["dense", "svd", "dense (onnxruntime int8)", "svd (onnxruntime int8)"]
    table = (tmp_path / "results.md").read_text()
    assert "| dense | PyTorch |" in table and "corporation | creative-work | group | location | person" in table
    assert (tmp_path / "results.png").stat().st_size > 1000
    monkeypatch.setattr(study.whet, "compress", None)
    monkeypatch.setattr(study.whet, "finetune", None)
    monkeypatch.setattr("sys.argv", [*words, "--make-only"])
    study.main()
