"""Wrong arguments of the public functions: each is one sentence, before any work."""

from pathlib import Path

import numpy as np
import pytest
import torch

import whet
from helpers import tiny_model
from whet.utils.parameters import shown

MODEL, OUT = "model", "out"
TASK = whet.load_task("agreement")
RECIPE = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])
SETTINGS = whet.TrainingSettings()
STUDENT = whet.student_from("layer_subset:odd")

GOOD = {
    whet.load_model: {"model": MODEL},
    whet.load: {"folder": MODEL},
    whet.deploy: {"model": MODEL, "out": OUT},
    whet.load_task: {"train_file": "train.csv"},
    whet.finetune: {"base": MODEL, "task": TASK, "out": OUT, "settings": SETTINGS},
    whet.distill: {"teacher": MODEL, "student": STUDENT, "task": TASK, "out": OUT, "settings": SETTINGS},
    whet.compress: {"model": MODEL, "recipe": RECIPE, "out": OUT},
    whet.measure: {"models": [MODEL], "task": TASK},
    whet.search: {"model": MODEL, "task": TASK, "out": OUT},
    whet.export: {"model": MODEL, "runtimes": ["onnxruntime"]},
    whet.inspect: {"model": MODEL},
    whet.write_report: {"folders": [MODEL]},
    whet.student_from: {"text": "layer_subset:odd"},
    whet.Recipe.read: {"path": "structured"},
}
"""Arguments with which each function can be called; the model does not exist."""

FEW = (0, -1, 1.5, float("nan"), "1", True, [1])
COUNTS = (0, -1, 10**20, 10**5000, 1.5, float("nan"), "1", True, None, [1])
WRONG = {
    "path": [None, 3, ["a"], "", "a\0b", b"a", print],
    "model object": [tiny_model("bert"), torch.nn.Linear(1, 1)],
    "paths": [MODEL, Path(MODEL), None, 3, [3], [""], ["a\0"], [tiny_model("bert")], {"a": 1}],
    "names": ["onnxruntime", None, 3, [3], [None]],
    "task": ["agreement", None, 3, {"name": "agreement"}, whet.Task],
    "recipe": [[{"method": "svd", "keep": 0.5}], "svd", None, RECIPE.methods[0]],
    "student": ["layer_subset:odd", None, whet.Student],
    "settings": [{"epochs": 1}, None, 3, whet.TrainingSettings],
    "settings or none": [{"epochs": 1}, 3, "x"],
    "seed": [-1, 2**32, 1.0, None, "0", float("nan"), True],
    "device": ["gpu", "", None, 3, "cuda:99", torch.device("cpu")],
    "flag": [1, "yes", None],
    "function": [3, "print", None],
    "text or none": [3, ["text"]],
    "text": [3, None, ["text"], b"text"],
    "columns": [3, None, [3], b"text", {"text": 1}],
    "few": [*FEW, None],
    "few or none": FEW,
    "count": COUNTS,
    "count or none": [value for value in COUNTS if value is not None],
    "batch": [3, None, (0, 1), (1, 0), (1, 1, 1), (1.5, 2), (10**20, 1), ("1", "1"), "11"],
    "seconds": [0, -1, float("nan"), float("inf"), 10**20, "30m", None],
    "kl": [0, -1, float("nan"), float("inf"), 10**20, "1"],
}
"""Values that are wrong for a kind of argument."""
KINDS = {
    whet.load_model: {"model": "path"},
    whet.load: {
        "folder": "path", "runtime": "text or none", "precision": "text or none", "threads": "few or none",
        "max_length": "few or none", "batch_size": "few",
    },
    whet.deploy: {
        "model": "path", "out": "path", "runtime": "text or none", "precision": "text or none", "overwrite": "flag",
    },
    whet.load_task: {
        "text": "text", "label": "columns", "label_separator": "text or none", "kind": "text or none",
        "metric": "text or none",
    },
    whet.finetune: {
        "base": "path", "task": "task", "out": "path", "settings": "settings", "lora": "settings or none",
        "device": "device", "overwrite": "flag", "report_to": "names", "report": "function",
    },
    whet.distill: {
        "teacher": "path", "student": "student", "task": "task", "out": "path", "settings": "settings",
        "objective": "settings or none", "calibration": "settings or none", "unlabeled": "settings or none",
        "device": "device", "overwrite": "flag", "report_to": "names", "report": "function",
    },
    whet.compress: {
        "model": "path", "recipe": "recipe", "out": "path", "calibration": "settings or none", "seed": "seed",
        "device": "device", "overwrite": "flag", "report": "function",
    },
    whet.measure: {"models": "paths", "task": "task", "benchmark": "settings or none", "overwrite": "flag"},
    whet.search: {
        "model": "path", "task": "task", "out": "path", "goal": "settings or none", "seconds": "seconds",
        "batch_size": "count", "max_length": "count", "seed": "seed", "join": "flag", "overwrite": "flag",
        "report": "function", "warn": "function",
    },
    whet.export: {
        "model": "path", "runtimes": "names", "precisions": "names", "calibration": "settings or none", "seed": "seed",
        "max_kl": "kl", "threads": "count or none",
    },
    whet.inspect: {"model": "path", "batch": "batch", "rounds": "count"},
    whet.write_report: {"folders": "paths", "overwrite": "flag"},
    whet.student_from: {"text": "text"},
    whet.Recipe.read: {"path": "path"},
}  # fmt: skip
"""Of which kind each argument of each function is."""
CALLS = [
    (function, name, value)
    for function, kinds in KINDS.items()
    for name, kind in kinds.items()
    for value in [*WRONG[kind], *(WRONG["model object"] if kind == "path" else ())]
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("function", "name"), {(function, name): None for function, name, _ in CALLS})
def test_a_wrong_argument_is_one_sentence_that_names_it(function, name):
    for value in (value for other, argument, value in CALLS if (other, argument) == (function, name)):
        with pytest.raises(whet.InvalidParameter) as refused:
            function(**{**GOOD[function], name: value})
        sentence = str(refused.value)
        assert "\n" not in sentence and len(sentence) < 400
        assert ", but got " in sentence and "; " in sentence
        assert name in sentence or name == "batch"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("function", [whet.load_model, whet.inspect, whet.compress, whet.export, whet.search])
def test_a_model_in_memory_is_to_be_saved_first(function):
    with pytest.raises(whet.InvalidParameter, match=r"save it first, with its tokenizer: model\.save_pre"):
        function(**{**GOOD[function], "model": tiny_model("bert")})


def test_models_are_a_list_of_folders():
    with pytest.raises(whet.InvalidParameter, match=r"got models=\['a', a BertForSeq\w+\]; save it first"):
        whet.measure(**{**GOOD[whet.measure], "models": ["a", tiny_model("bert")]})
    with pytest.raises(whet.InvalidParameter, match=r"give a list: \['a'\]"):
        whet.measure(**{**GOOD[whet.measure], "models": "a"})


STEP = {"method": "svd", "keep": 0.5}


@pytest.mark.parametrize("entries", [None, 3, "svd", STEP, [STEP, "svd"], [None], [["method", "svd"]], [{3: 4}], [{}]])
def test_a_recipe_is_a_list_of_steps(entries):
    with pytest.raises(whet.WhetError, match="must be"):
        whet.Recipe.from_list(entries)


@pytest.mark.parametrize("methods", [None, 3, "svd", ["svd"], (STEP,), RECIPE.methods[0], (whet.Method,)])
def test_a_recipe_holds_methods(methods):
    with pytest.raises(whet.InvalidRecipe, match="a recipe must be a tuple of methods"):
        whet.Recipe(methods)


@pytest.mark.parametrize("value", [*COUNTS, np.array([1]), {}], ids=lambda value: shown(value)[:9])
@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (whet.Benchmark, "rounds"),
        (whet.Calibration, "examples"),
        (whet.LoraSettings, "rank"),
        (whet.TrainingSettings, "batch_size"),
    ],
)
def test_settings_refuse_what_is_no_sensible_number(settings, name, value):
    with pytest.raises(whet.InvalidParameter, match=rf"{name}.*, but got {name}=[^\n]*; give one such as {name}="):
        settings(**{name: value})


def test_lists_serve_as_tuples_and_a_name_alone_does_not():
    assert whet.Benchmark(runtimes=["pytorch"]).runtimes == ["pytorch"]
    with pytest.raises(whet.InvalidParameter, match="runtimes must be a list of text, but got runtimes='pytorch'"):
        whet.Benchmark(runtimes="pytorch")
