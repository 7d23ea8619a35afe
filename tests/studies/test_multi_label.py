"""The study of several labels makes and writes all that it says, and a second run makes nothing anew."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from folders import save
from helpers import tiny_model
from kinds import sentences
from whet.evaluation.metrics import latency

STUDY = Path(__file__).parents[2] / "studies" / "multi_label" / "run.py"
LOW_RANK = [{"method": "svd", "keep": 0.5}]


def made_up_seconds(calls, *, rounds: int, **_) -> np.ndarray:
    """A replacement for `time_batches`: (rounds, batches, models) seconds."""
    return np.random.default_rng(0).uniform(1e-3, 2e-3, (rounds, len(calls), len(calls[0])))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study's module with few recipes, one other runtime, and everything written below a folder."""
    spec = importlib.util.spec_from_file_location("multi_label_run", STUDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(latency, "time_batches", made_up_seconds)
    for owner, name, value in (
        (module, "HERE", tmp_path),
        (module, "RECIPES", {"dense": [], "svd": LOW_RANK}),
        (module, "STUDENT", "layer_subset:odd"),
        (module, "STUDENTS", {"student": LOW_RANK}),
        (module, "PACE", {"epochs": 1}),
        (module.glue, "FINE_TUNING", {"goemotions": [{"epochs": 1}]}),
        (module.glue, "CURVES", tmp_path / "fine_tuning.json"),
        (module.deployments, "HERE_TOO", [("onnxruntime", "int8")]),
        (module.deployments, "RUNTIMES", ["onnxruntime"]),
        (module.deployments, "PRECISIONS", ["int8"]),
    ):
        monkeypatch.setattr(owner, name, value)
    return module


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    for seed, (split, count) in enumerate((("train", 60), ("test", 12))):
        lines = (f"{text}\t{i % 28},{(i + 1) % 28}\tid" for i, text in enumerate(sentences(count, seed=seed)))
        (tmp_path / f"{split}.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    words = [
        "run.py", "--base", str(tmp_path / "base"), "--data-dir", str(tmp_path), "--runs", str(tmp_path / "runs"),
        "--threads", "1", "--rounds", "6",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    study.main()
    [rows] = json.loads((tmp_path / "results.json").read_text()).values()
    models = ["dense", "svd", "student"]
    assert [row["name"] for row in rows] == [*models, *(f"{name} (onnxruntime int8)" for name in models)]
    assert rows[0]["measurements"][0]["metric"] == "micro_f1" and rows[0]["measurements"][0]["n"] == 12
    table = (tmp_path / "results.md").read_text()
    assert "| model | where | macro_label_f1 | mean_average_precision |" in table
    assert (tmp_path / "results.png").stat().st_size > 1000
    monkeypatch.setattr(study.whet, "compress", None)
    monkeypatch.setattr(study.whet, "finetune", None)
    monkeypatch.setattr(study.whet, "distill", None)
    monkeypatch.setattr("sys.argv", [*words, "--make-only"])
    study.main()
    (tmp_path / "results.md").unlink()
    monkeypatch.setattr("sys.argv", [*words, "--tasks"])
    study.main()
    assert (tmp_path / "results.md").read_text() == table
