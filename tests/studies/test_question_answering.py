"""The study of question answering makes and writes all that it says, and a second run makes nothing anew."""

import gzip
import json
from pathlib import Path

import pytest

import whet
from folders import save
from helpers import tiny_model
from studied import ROWS, forbid_making, runner, small_study

MAX_LENGTH = 32


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
    changed = {
        "MAX_LENGTH": MAX_LENGTH,
        "SETTINGS": whet.TrainingSettings(epochs=1, batch_size=16, max_length=MAX_LENGTH),
        "CALIBRATION": whet.Calibration(examples=16, batch_size=8, max_length=MAX_LENGTH),
    }
    return small_study("question_answering", tmp_path, monkeypatch, **changed)


def test_a_study_of_tiny_data(study, tmp_path, tokenizer, monkeypatch):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    write_squad(tmp_path / "squad" / "dev-v1.1.json", 9)
    for name in ("train", "dev"):
        write_squad(tmp_path / "tydiqa_en" / f"tydiqa.goldp.en.{name}.json", 5)
    for path in (tmp_path / "tydiqa_en").iterdir():
        path.rename(f"{path}.gz").write_bytes(gzip.compress(Path(f"{path}.gz").read_bytes()))
    run = runner(study, tmp_path, monkeypatch)
    run()
    [rows] = json.loads((tmp_path / "results.json").read_text()).values()
    assert [row["name"] for row in rows] == ROWS
    assert rows[0]["measurements"][0]["metric"] == "answer_f1" and rows[0]["measurements"][0]["n"] == 12
    assert "| dense | PyTorch |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 1000
    forbid_making(monkeypatch)
    run("--make-only")
    run("--write-only")
    run("--only")
    [rows] = json.loads((tmp_path / "results.json").read_text()).values()
    assert [row["name"].partition(" ")[0] for row in rows] == ["dense"] * len(rows)
