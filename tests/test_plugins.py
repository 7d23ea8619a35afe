"""An installed package adds methods, students, runtimes, data and kinds; a notebook defines a method in a cell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import whet
from folders import classifier, save, write_rows
from helpers import tiny_batches
from plugins import CODE, ENTRY_POINTS, TOY_METHOD, install
from whet.calibration.resources import Resources
from whet.methods.recipe import Recipe

COMMANDS = """
import json, sys
from whet.cli import app
from whet.runtimes.base import all_runtimes
from whet.tasks.base import task_named
from whet.tasks.kinds.base import all_kinds
from whet.training.students.base import student_from

def run(*words):
    sys.argv = ["whet", *words]
    try:
        app.main()
    except SystemExit as end:
        assert not end.code, (words, end.code)

out = ["--train-file", "train.csv", "--out"]
run("compress", "model", "--method", "toy_method", "--set", "factor=0.25", *out, "by_method")
run("compress", "model", "--recipe", "toy.yaml", *out, "by_recipe")
run("methods", "--json")
facts = {
    "student": str(student_from("toy_student:any")),
    "runtime": all_runtimes()["toy_runtime"].__module__,
    "kind": type(all_kinds()["toy_kind"]).__module__,
    "labels": list(task_named("toy/odd").label_names),
}
print("FACTS", json.dumps(facts))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory, tokenizer) -> Path:
    """A folder with a model, data and a recipe of the toy method."""
    folder = tmp_path_factory.mktemp("work")
    save(classifier(), tokenizer, folder / "model")
    write_rows(folder / "train.csv", 40)
    (folder / "toy.yaml").write_text("- method: toy_method\n  factor: 0.25\n")
    return folder


def linear_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]


def test_an_installed_package_is_used_from_the_command_line(work, tmp_path):
    site = install(tmp_path / "site", CODE, ENTRY_POINTS)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        check=False,
        cwd=work,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    text, _, facts = done.stdout.partition("FACTS ")
    toy = json.loads(text[text.index("{\n") :])["toy_method"]
    assert (toy["summary"], toy["source"]) == ("Make the weights of linear layers smaller.", "a test.")
    assert [(row["name"], row["meaning"]) for row in toy["parameters"]] == [
        ("factor", "What weights are multiplied by.")
    ]
    added = {"student": "ToyStudent()", "runtime": "whet_toy", "kind": "whet_toy", "labels": ["no", "yes"]}
    assert json.loads(facts) == added
    before = linear_weights(AutoModelForSequenceClassification.from_pretrained(work / "model"))
    for name in ("by_method", "by_recipe"):
        after = linear_weights(AutoModelForSequenceClassification.from_pretrained(work / name))
        assert all(torch.equal(small, 0.25 * weight) for small, weight in zip(after, before, strict=True))


@pytest.mark.parametrize("module", [None, "__main__", "a_module_that_is_not_there"])
def test_a_method_without_a_source_file_works(work, tmp_path, module):
    """As in a cell of a notebook, or by exec."""
    space = {} if module is None else {"__name__": module}
    exec(TOY_METHOD, space)
    method = space["ToyMethod"](factor=0.5)
    assert (method.name(), method.source()) == ("toy_method", "a test.")
    assert method.summary() == "Make the weights of linear layers smaller."
    assert method.to_dict() == {"method": "toy_method", "factor": 0.5}
    with pytest.raises(whet.errors.InvalidParameter, match=r"^factor must be of type float, but got factor='1'; "):
        space["ToyMethod"](factor="1")
    model = classifier()
    small = Recipe((method,)).apply(model, Resources())
    batch = next(iter(tiny_batches()))
    assert not torch.equal(small(**batch).logits, model(**batch).logits)
    task = whet.load_task(train_file=work / "train.csv", text="text")
    whet.compress(work / "model", Recipe((method,)), tmp_path / "out", task=task)
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(linear_weights(saved)[0], linear_weights(small)[0])
    assert "toy_method" in (tmp_path / "out" / "recipe.yaml").read_text()
