"""A method that a script or a notebook cell defines: recipes record it, and what it made needs no class to be read."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import whet
from folders import classifier, save, write_rows

CELL = '''
from dataclasses import dataclass
from typing import ClassVar

import torch
import whet
from whet.models import Architecture, dense_weight


@dataclass(frozen=True, kw_only=True)
class SmallRows(whet.Method):
    """Set the rows of least norm to zero."""

    keep: float = 0.5
    """Fraction of the rows that stay."""
    stage: ClassVar = whet.Stage.TRAINING
    needs: ClassVar = frozenset()

    def apply(self, model, resources):
        for name in Architecture.of(model).linears:
            weight = dense_weight(model.get_submodule(name))
            norms = weight.norm(dim=1)
            with torch.no_grad():
                weight[norms < norms.quantile(1 - self.keep)] = 0
        return model
'''
SCRIPT = f"""{CELL}
import sys
whet.compress(sys.argv[1], whet.Recipe([SmallRows(keep=0.9)]), sys.argv[2])
assert whet.method_named("small_rows") is SmallRows
"""
QUICK = whet.Benchmark(metrics=("latency", "size"), rounds=6, singles=2, timed=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer) -> Path:
    """A dense model and its data."""
    root = tmp_path_factory.mktemp("own")
    save(classifier(), tokenizer, root / "dense")
    write_rows(root / "train.csv", 60)
    write_rows(root / "dev.csv", 20, seed=1)
    return root


@pytest.fixture
def cell(monkeypatch):
    """Runs source as a cell of a notebook does, whose names are those of `__main__`; returns these."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run(source: str) -> dict:
        exec(compile(source, "<ipython-input-1>", "exec"), vars(main))
        return vars(main)

    return run


def test_what_a_script_made_is_measured_reported_and_loaded_without_its_class(root, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "mine"
    subprocess.run([sys.executable, script, root / "dense", out], check=True, capture_output=True)
    monkeypatch.setattr("whet.methods.base._defined_here", dict)  # (other tests define classes of this name)
    with pytest.raises(whet.UnknownName, match=r"'small_rows'.*a method of your own must be defined or imported first"):
        whet.Recipe.read(out / "recipe.yaml")
    task = whet.load_task(train_file=root / "train.csv", dev_file=root / "dev.csv")
    trials = whet.measure([root / "dense", out], task, benchmark=QUICK, out=tmp_path / "run")
    assert [trial.name for trial in trials] == ["dense", "mine"]
    assert trials[1].recipe == [{"method": "small_rows", "keep": 0.9}]
    page = whet.write_report([tmp_path / "run"], tmp_path / "shown").read_text()
    assert "small_rows" in page
    assert whet.inspect(out, batch=(2, 4), rounds=1).modules
    assert whet.load_model(out)
    assert "small_rows" in (out / "README.md").read_text()


def test_a_cell_is_found_by_name_and_runs_again(root, tmp_path, cell):
    first = cell(CELL)["SmallRows"]
    second = cell(CELL)["SmallRows"]
    assert whet.method_named("small_rows") is second is not first
    for number, method in enumerate((first, second)):  # an instance of before is as good
        whet.compress(root / "dense", whet.Recipe([method(keep=0.9)]), tmp_path / str(number))
    [recipe] = {(tmp_path / str(number) / "recipe.yaml").read_text() for number in range(2)}
    assert whet.Recipe.read(tmp_path / "0" / "recipe.yaml").methods == (second(keep=0.9),)
    assert recipe == "- method: small_rows\n  keep: 0.9\n"


def test_a_method_that_returns_no_model_is_named(root, tmp_path, cell):
    assert "return model" in CELL
    step = cell(CELL.replace("return model", "return None"))["SmallRows"]()
    with pytest.raises(whet.InvalidRecipe, match="must return a model, but small_rows returned None; correct it"):
        whet.compress(root / "dense", whet.Recipe((step,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_recorded_as_numbers(cell):
    method = cell(CELL)["SmallRows"](keep=np.float64(0.25))
    assert json.dumps(method.to_dict()) == '{"method": "small_rows", "keep": 0.25}'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "class SmallRows",
            "class Magnitude",
            "class Magnitude, which recipes call 'magnitude' like pruning.magnitude",
        ),
        ("keep: float = 0.5", "keep: object = print", "numbers, texts or lists of them"),
        ("@dataclass(frozen=True, kw_only=True)", "", "keep in SmallRows, which is none; put @dataclass"),
        ("stage: ClassVar", "other: ClassVar", "must say its stage, but got none in SmallRows; add the line `stage:"),
        ("needs: ClassVar", "other: ClassVar", "must say its needs, but got none in SmallRows; add the line `needs:"),
    ],
)
def test_a_class_that_cannot_be_recorded_is_refused_before_any_work(root, tmp_path, cell, old, new, message):
    assert old in CELL
    names = cell(CELL.replace(old, new))
    made = names.get("SmallRows") or names["Magnitude"]
    with pytest.raises((whet.InvalidRecipe, whet.InvalidParameter), match=message):
        whet.compress(tmp_path / "no model is read", whet.Recipe([made()]), tmp_path / "out")
