"""The study of question answering makes and writes all that it says, and a second run makes nothing anew."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import whet
from folders import save
from helpers import tiny_model
from whet.evaluation.metrics import latency

STUDY = Path(__file__).parents[2] / "studies" / "question_answering" / "run.py"
MAX_LENGTH = 32


def made_up_seconds(calls, *, rounds: int, **_) -> np.ndarray:
    """A replacement for `time_batches`: (rounds, batches, models) seconds."""
    return np.random.default_rng(0).uniform(1e-3, 2e-3, (rounds, len(calls), len(calls[0])))


def write_squad(path: Path, articles: int) -> None:
    """Write articles of four questions about two contexts each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = []
    for i in range(articles):
        words = [f"w{5 + (3 * i + k) % 90}" for k in range(40)]
        qas = [{"question": word, "answers": [{"text": word, "answer_start": 0}]} for word in (words[0], "w99")]
        qas[1]["answers"] = [{"text": words[0], "answer_start": 0}]
        paragraphs = [{"context": " ".join([words[0], mark, *words[1:]]), "qas": qas} for mark in ("w97", "w98")]
        data.append({"title": f"article {i}", "paragraphs": paragraphs})
    path.write_text(json.dumps({"data": data}))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study's module with two recipes, one other runtime, and everything written below a folder."""
    spec = importlib.util.spec_from_file_location("question_answering_run", STUDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = whet.TrainingSettings(epochs=1, batch_size=16, max_length=MAX_LENGTH)
    for name, value in (
        ("HERE", tmp_path),
        ("MAX_LENGTH", MAX_LENGTH),
        ("SETTINGS", settings),
        ("CALIBRATION", whet.Calibration(examples=16, batch_size=8, max_length=MAX_LENGTH)),
        ("RECIPES", {"dense": [], "svd": [{"method": "svd", "keep": 0.5}]}),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(latency, "time_batches", made_up_seconds)
    for name, value in (
        ("HERE_TOO", [("onnxruntime", "int8")]),
        ("RUNTIMES", ["onnxruntime"]),
        ("PRECISIONS", ["int8"]),
    ):
        monkeypatch.setattr(module.deployments, name, value)
    return module


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    write_squad(tmp_path / "squad" / "dev-v1.1.json", 9)
    for name in ("train", "dev"):
        write_squad(tmp_path / "tydiqa_en" / f"tydiqa.goldp.en.{name}.json", 5)
    for path in (tmp_path / "tydiqa_en").iterdir():
        path.rename(f"{path}.gz").write_bytes(gzip.compress(Path(f"{path}.gz").read_bytes()))
    words = [
        "run.py", "--base", str(tmp_path / "base"), "--data-dir", str(tmp_path), "--runs", str(tmp_path / "runs"),
        "--threads", "1", "--rounds", "6",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    study.main()
    [rows] = json.loads((tmp_path / "results.json").read_text()).values()
    assert [row["name"] for row in rows] == ["dense", "svd", "dense (onnxruntime int8)", "svd (onnxruntime int8)"]
    assert rows[0]["measurements"][0]["metric"] == "answer_f1" and rows[0]["measurements"][0]["n"] == 12
    assert "| dense | PyTorch |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 1000
    monkeypatch.setattr(study.whet, "compress", None)
    monkeypatch.setattr(study.whet, "finetune", None)
    monkeypatch.setattr("sys.argv", [*words, "--make-only"])
    study.main()
    monkeypatch.setattr("sys.argv", [*words, "--write-only"])
    study.main()
