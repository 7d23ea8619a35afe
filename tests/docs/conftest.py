"""What the pages of the documentation start from: the models and files that their commands name, all of them tiny."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from folders import classifier, save, write_rows, write_tagged
from helpers import linears, tiny_model
from searches import made_up, stop_after
from sentences import sentence_folder, write_pairs
from whet.api import cascading
from whet.evaluation import significance
from whet.evaluation.metrics import latency
from whet.evaluation.timing import RuntimeTimer
from whet.searching.stages import StagedEvaluation

LABELS = ("negative", "positive")
BASE = "sentence-transformers/all-MiniLM-L6-v2"
"""The base model of the pages, by its name on the hub, which is a folder here."""


@pytest.fixture(scope="session")
def named_by_pages(tmp_path_factory, tokenizer) -> Path:
    """A folder with all that pages name without making it; never changed."""
    root = tmp_path_factory.mktemp("named_by_pages")
    save(classifier("bert", LABELS), tokenizer, root / "mymodel")
    save(tiny_model("bert").base_model, tokenizer, root / BASE)
    sentence_folder(root / "embedder", tokenizer)
    write_pairs(root / "pairs.csv", 12)
    write_rows(root / "train.csv", 120, labels=LABELS)
    write_rows(root / "dev.csv", 12, seed=1, labels=LABELS)
    write_tagged(root / "train.conll", 120)
    write_tagged(root / "dev.conll", 12, seed=1)
    write_rows(root / "more.csv", 40, seed=2, labels=LABELS)
    write_rows(root / "many.csv", 12_000, seed=3, labels=LABELS)
    return root


def made_up_seconds(calls, *, rounds: int, **_) -> np.ndarray:
    """A replacement for `time_batches`: (rounds, batches, models) seconds, in which no model is faster."""
    return np.random.default_rng(0).uniform(1e-3, 2e-3, (rounds, len(calls), len(calls[0])))


@pytest.fixture
def working_folder(named_by_pages, tmp_path, monkeypatch) -> Path:
    """A copy of `named_by_pages` as the working folder, in which nothing depends on this machine's speed."""
    shutil.copytree(named_by_pages, tmp_path / "work", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("WHET_CACHE", str(named_by_pages / "cache"))  # pages share what measure exports
    monkeypatch.setattr(significance, "RESAMPLES", 50)
    monkeypatch.setattr(latency, "time_batches", made_up_seconds)
    monkeypatch.setattr(RuntimeTimer, "opened", lambda _, model: model)
    monkeypatch.setattr(RuntimeTimer, "time", lambda _, models: np.array([[linears(one) for one in models]]))
    monkeypatch.setattr(StagedEvaluation, "run", made_up())
    monkeypatch.setattr(cascading, "_require_faster_first", lambda *_: None)  # all models are tiny
    stop_after(monkeypatch, 4)
    return tmp_path / "work"
