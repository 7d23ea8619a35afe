"""Studies of whole deployments as tests run them: tiny data, few recipes, one other runtime and made-up times."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import whet
from whet.evaluation.metrics import latency

RECIPES: dict[str, list[dict[str, Any]]] = {"dense": [], "svd": [{"method": "svd", "keep": 0.5}]}
ROWS = ["dense", "svd", "dense (onnxruntime int8)", "svd (onnxruntime int8)"]
"""What a study of these recipes measures."""


def _made_up_seconds(calls: list[list[Any]], *, rounds: int, **_: Any) -> np.ndarray:
    """A replacement for `time_batches`: (rounds, batches, models) seconds."""
    return np.random.default_rng(0).uniform(1e-3, 2e-3, (rounds, len(calls), len(calls[0])))


def small_study(name: str, out: Path, monkeypatch: pytest.MonkeyPatch, **others: Any) -> ModuleType:
    """Return the module of a study that writes below a folder.

    Args:
        name: of its folder.
        out: where results go.
        monkeypatch: undoes the changes.
        others: further values of the module.
    """
    spec = importlib.util.spec_from_file_location(
        f"{name}_run", Path(__file__).parents[1] / "studies" / name / "run.py"
    )
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    monkeypatch.setattr(latency, "time_batches", _made_up_seconds)
    for key, value in {"HERE": out, "RECIPES": RECIPES, **others}.items():
        monkeypatch.setattr(study, key, value)
    for key, value in {
        "HERE_TOO": [("onnxruntime", "int8")],
        "RUNTIMES": ["onnxruntime"],
        "PRECISIONS": ["int8"],
    }.items():
        monkeypatch.setattr(study.deployments, key, value)
    return study


def runner(study: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what runs a study with the base and the data below a folder, and further words of the command line."""

    def run(*words: str) -> None:
        shared = ("--base", out / "base", "--data-dir", out, "--runs", out / "runs", "--threads", 1, "--rounds", 6)
        monkeypatch.setattr("sys.argv", ["run.py", *map(str, shared), *words])
        study.main()

    return run


def forbid_making(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a second run fail where it makes a model anew."""
    for name in ("compress", "finetune", "distill", "make_candidates"):
        monkeypatch.setattr(whet, name, None)
