"""Several recipes in one run: what is kept, what is refused, and what a failure costs."""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

import whet
from folders import classifier, save, tree, write_rows
from whet.api import comparing
from whet.calibration.resources import Calibration
from whet.methods.base import Stage

FEW = Calibration(examples=16)
SVD = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])
DRONE = whet.Recipe.from_list([{"method": "drone", "keep": 0.5}])
RECIPES = {"svd": SVD, "drone": DRONE}
QUICK = whet.Benchmark(rounds=6, singles=2, timed=8, metrics=("size",))


@dataclass(frozen=True, kw_only=True)
class Failing(whet.Method):
    """Never works.

    Source: none.
    """

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {}
    mildest: ClassVar[dict[str, Any]] = {}

    def apply(self, model, resources):
        raise RuntimeError("out of\nluck")


def own_recipe(*, edited: bool) -> whet.Recipe:
    """A method of one name, before or after its code was edited, as in a notebook's cell."""

    @dataclass(frozen=True, kw_only=True)
    class Own(Failing):
        """Turns the head.

        Source: none.
        """

        def apply(self, model, resources):
            model.classifier.weight.data.neg_()
            return model

    if edited:
        Own.apply = lambda self, model, resources: model.half().float()
    return whet.Recipe((Own(),))


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    """A model and data, and what comparing two recipes in two runtimes gave in `out`; never changed."""
    root = tmp_path_factory.mktemp("comparing")
    save(classifier(), tokenizer, root / "dense")
    write_rows(root / "train.csv", 60)
    write_rows(root / "dev.csv", 20, seed=1)
    return root


@pytest.fixture(scope="module")
def task(root):
    return whet.load_task(train_file=root / "train.csv", dev_file=root / "dev.csv")


def compared(root, task, out, recipes=RECIPES, **changes):
    return whet.compare(root / "dense", recipes, task, out, **{"benchmark": QUICK, "calibration": FEW} | changes)


@pytest.fixture
def made(monkeypatch):
    """The names of the models that are made."""
    names: list[str] = []
    real = comparing.compress

    def noting(model, recipe, out, **rest):
        names.append(out.name)
        return real(model, recipe, out, **rest)

    monkeypatch.setattr(comparing, "compress", noting)
    return names


def test_every_model_is_measured_beside_the_baseline_in_one_run(root, task, tmp_path):
    lines = []
    found = compared(root, task, tmp_path / "out", report=lines.append)
    assert [trial.name for trial in found.trials] == ["dense", *RECIPES]
    assert [trial.recipe for trial in found.trials] == [[], *(recipe.to_list() for recipe in RECIPES.values())]
    assert len({trial.conditions["measured"] for trial in found.trials}) == 1
    assert found.failures == {}
    for name in RECIPES:
        assert name in found.page.read_text(encoding="utf-8")
        assert len((tmp_path / "out" / name / "measurements.jsonl").read_text().splitlines()) == 1
        whet.load_model(tmp_path / "out" / name)
    assert [line.split(":")[0] for line in lines[:2]] == list(RECIPES)
    assert len(lines) == 3
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_second_run_keeps_what_is_there_and_makes_what_is_new(root, task, tmp_path, made):
    compared(root, task, tmp_path / "out", {"svd": SVD})
    before = (tmp_path / "out" / "svd" / "model.safetensors").stat().st_mtime_ns
    found = compared(root, task, tmp_path / "out")
    assert made == ["svd", "drone"]
    assert (tmp_path / "out" / "svd" / "model.safetensors").stat().st_mtime_ns == before
    assert [trial.name for trial in found.trials] == ["dense", *RECIPES]


def test_a_damaged_model_is_made_again(root, task, tmp_path, made):
    compared(root, task, tmp_path / "out", {"svd": SVD})
    (tmp_path / "out" / "svd" / "model.safetensors").write_bytes(b"")
    compared(root, task, tmp_path / "out", {"svd": SVD})
    assert made == ["svd", "svd"]


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("recipe", {"recipes": {"svd": whet.Recipe.from_list([{"method": "svd", "keep": 0.6}])}}),
        ("seed", {"seed": 1}),
        ("calibration", {"calibration": replace(FEW, examples=17)}),
        ("baseline", {"model": "other"}),
        ("data", {"train": "dev.csv"}),
    ],
)
def test_a_model_made_in_another_way_is_refused_and_made_again_only_on_demand(
    root, task, tmp_path, tokenizer, made, monkeypatch, what, changes
):
    out, given = tmp_path / "out", {"recipes": {"svd": SVD}, "model": "dense", "train": "train.csv"} | changes
    save(classifier("bert", blocks=1), tokenizer, tmp_path / "other")
    compared(root, task, out, {"svd": SVD})
    before = tree(out)
    model = (tmp_path if what == "baseline" else root) / given.pop("model")
    other = whet.load_task(train_file=root / given.pop("train"), dev_file=root / "dev.csv")
    call = {"benchmark": QUICK, "calibration": FEW} | {key: value for key, value in given.items() if key != "recipes"}
    with pytest.raises(
        whet.OutputExists, match=f"must be made as before, but .*svd has (another|other) {what}; name another"
    ):
        whet.compare(model, given["recipes"], other, out, **call)
    assert tree(out) == before and made == ["svd"]
    whet.compare(model, given["recipes"], other, out, **call, overwrite=True)
    assert made == ["svd", "svd"]


def test_a_recipe_that_fails_loses_no_other(root, task, tmp_path):
    recipes = {"unlucky": whet.Recipe((Failing(),)), **RECIPES}
    found = compared(root, task, tmp_path / "out", recipes)
    assert found.failures == {"unlucky": "RuntimeError: out of luck"}
    assert [trial.name for trial in found.trials] == ["dense", *RECIPES]
    assert not (tmp_path / "out" / "unlucky").exists()


def test_what_stops_all_stops_the_run(root, task, tmp_path, monkeypatch):
    def full(*_, **__):
        raise whet.OutputNotWritten("the disk must have room, but got none; make some")

    monkeypatch.setattr(comparing, "compress", full)
    with pytest.raises(whet.OutputNotWritten):
        compared(root, task, tmp_path / "out")


def test_runtimes_get_exports_and_the_baseline_too(root, task, tmp_path, made):
    in_int8 = whet.Recipe.from_list([{"method": "dynamic_int8"}])
    quick = replace(QUICK, runtimes=("pytorch", "onnxruntime"), precisions=("int8",))
    before = tree(root)
    found = compared(root, task, tmp_path / "out", {"svd": SVD, "int8": in_int8}, benchmark=quick)
    names = [trial.name for trial in found.trials]
    assert names == ["dense", "svd", "int8", "dense (onnxruntime int8)", "svd (onnxruntime int8)"]
    assert list(found.failures) == ["int8 (onnxruntime int8)"]
    assert tree(root) == before
    exported = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.onnx")}
    assert len(exported) == 2
    compared(root, task, tmp_path / "out", {"svd": SVD}, benchmark=quick)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.onnx")} == exported


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "a recipe must be given"),
        (["a/b"], "a name that can be a folder's"),
        ([".a"], "a name that can be a folder's"),
        (["comparison.json"], "a name that can be a folder's"),
        (["dense"], "a name of its own, but got dense twice"),
    ],
)
def test_names_that_cannot_be_folders_are_refused(root, task, tmp_path, names, message):
    with pytest.raises(whet.InvalidParameter, match=message):
        compared(root, task, tmp_path / "out", dict.fromkeys(names, SVD))
    assert not (tmp_path / "out").exists()


def test_data_without_a_final_measurement_are_refused_before_any_work(root, tmp_path, made):
    with pytest.raises(whet.InvalidData, match="--dev-file must be given"):
        compared(root, whet.load_task(train_file=root / "train.csv"), tmp_path / "out")
    assert made == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_stay(root, task, tmp_path, overwrite):
    compared(root, task, tmp_path / "out", {"svd": SVD})
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(whet.OutputExists, match="holds files"):
        compared(root, task, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "svd" / "model.safetensors").is_file()


def test_a_stop_between_two_models_is_gone_on_from(root, task, tmp_path, monkeypatch, made):
    noting = comparing.compress

    def stopped(model, recipe, out, **rest):
        if out.name == "drone":
            raise KeyboardInterrupt
        return noting(model, recipe, out, **rest)

    monkeypatch.setattr(comparing, "compress", stopped)
    with pytest.raises(KeyboardInterrupt):
        compared(root, task, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["files"].keys() == set(RECIPES)
    monkeypatch.setattr(comparing, "compress", noting)
    compared(root, task, tmp_path / "out")
    assert made == ["svd", "drone"]


def test_a_method_whose_code_was_edited_is_not_the_one_that_made_a_model(root, task, tmp_path, made):
    compared(root, task, tmp_path / "out", {"own": own_recipe(edited=False)})
    compared(root, task, tmp_path / "out", {"own": own_recipe(edited=False)})
    assert made == ["own"]
    with pytest.raises(whet.OutputExists, match=r"out.own has another code of its methods; name another folder, or gi"):
        compared(root, task, tmp_path / "out", {"own": own_recipe(edited=True)})


def test_what_no_report_could_show_is_refused_before_work(root, task, tmp_path):
    with pytest.raises(whet.InvalidParameter, match=r"must take latency or size, but got metrics=\('fidelity',\); add"):
        compared(root, task, tmp_path / "out", benchmark=whet.Benchmark(metrics=("fidelity",)))
    assert not (tmp_path / "out").exists()
