"""Command lines in a folder with models and data."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from folders import classifier, save, write_rows
from whet.calibration.resources import Resources
from whet.cli import app
from whet.evaluation import records
from whet.methods.base import all_methods
from whet.methods.recipe import Recipe

NEEDS_NOTHING = next(
    method for _, method in sorted(all_methods().items()) if not method.needs and "keep" in method.example
)


class Ran(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def made(tmp_path_factory, tokenizer) -> Path:
    """A folder with a fine-tuned model, a base, a compressed model, and own data; never changed."""
    root = tmp_path_factory.mktemp("made")
    save(classifier(), tokenizer, root / "model")
    save(classifier().base_model, tokenizer, root / "base")
    write_rows(root / "train.csv", 80)
    write_rows(root / "dev.csv", 24, seed=1)
    recipe = Recipe((NEEDS_NOTHING(**NEEDS_NOTHING.example),))
    compressed = recipe.apply(classifier(), Resources())
    records.save_model(compressed, tokenizer, root / "small", recipe=recipe.to_list(), origin="model", seed=0)
    return root


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """A copy of `made` as the working folder."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line as the shell does."""

    def ran(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["whet", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main()
        code = end.value.code
        out, err = capsys.readouterr()
        assert code is None or isinstance(code, int)
        return Ran(code or 0, out, err)

    return ran


@pytest.fixture
def no_memory(monkeypatch):
    """Leaves out the one metric that starts processes."""
