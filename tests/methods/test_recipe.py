import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from annotated_types import Interval
from torch import nn
from transformers import (
    BertConfig,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import whet
from folders import classifier, save
from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, InvalidRecipe, MissingResource, NothingToCompress, UnknownName
from whet.methods import recipe as recipe_module
from whet.methods._share import KeepsShare
from whet.methods.base import Method, Stage, all_methods, method_from, method_named
from whet.methods.factorization.drone import Drone
from whet.methods.factorization.kfac import Kfac
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import SHIPPED, Recipe, Step
from whet.utils.parameters import parameters

SMALL_BERT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True, kw_only=True)
class Fake(Method):
    """Does nothing but say what it got."""

    amount: Annotated[int, Interval(ge=0)] = 0
    """Anything."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {}
    mildest: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[tuple[str, Resources]]] = []

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        self.seen.append((type(self).__name__, resources))
        return model.train()


class Shape(Fake):
    stage = Stage.ARCHITECTURE


class Heal(Fake):
    stage = Stage.TRAINING
    needs = frozenset({"train", "teacher"})


class Store(Fake):
    stage = Stage.STORAGE


class Shift(Fake):
    """Changes every weight, as a method may from stage TRAINING on."""

    stage = Stage.TRAINING

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        return model


@pytest.fixture(autouse=True)
def forget():
    Fake.seen.clear()


RECIPES = [
    Recipe(),
    Recipe((Svd(keep=0.5),)),
    Recipe((Drone(keep=0.25, allocation="by_loss", include="*.0.*"), Kfac(keep=0.123456789, damping=0.02))),
    Recipe((Kfac(keep=0.5, damping=1e-5),)),
    Recipe((Kfac(keep=1, damping=3),)),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipes_survive_yaml(recipe: Recipe, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipes_survive_json(recipe: Recipe, tmp_path: Path):
    # 1e-05, as Python writes it, is a number in JSON but a text in YAML 1.1
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_list(), indent=2), encoding="utf-8")
    assert Recipe.read(tmp_path / "recipe.json") == recipe


def test_several_recipes_are_read_by_name_and_one_by_the_name_of_its_file(tmp_path: Path):
    several = {f"number {i}": recipe for i, recipe in enumerate(RECIPES)}
    (tmp_path / "set.json").write_text(json.dumps({name: one.to_list() for name, one in several.items()}))
    assert Recipe.read_several(tmp_path / "set.json") == several
    for recipe in RECIPES:
        (tmp_path / "mine.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        assert Recipe.read_several(tmp_path / "mine.yaml") == {"mine": recipe}
    with pytest.raises(
        InvalidRecipe, match=r"one recipe must be given, but .*set\.json holds several: number 0, .*compare"
    ):
        Recipe.read(tmp_path / "set.json")


def test_every_recipe_of_the_course_works():
    course = Recipe.read_several("course")
    assert len(course) == len(set(course.values())) >= 6
    resources = Resources(calibration=tiny_batches(), seed=0)
    for recipe in course.values():
        assert recipe.apply(tiny_model("bert"), resources) is not None


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-05", "0.00001"])
def test_numbers_are_read_however_they_are_written(number: str, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(f"- method: kfac\n  keep: 0.5\n  damping: {number}\n", encoding="utf-8")
    assert Recipe.read(tmp_path / "recipe.yaml") == Recipe((Kfac(keep=0.5, damping=1e-5),))


def test_every_method_survives_its_file_form():
    for name, method in all_methods().items():
        original = method(**method.example)
        entry = original.to_dict()
        assert entry["method"] == name
        assert method_from(json.loads(json.dumps(entry))) == original
        # the short name and the parameters that differ from their defaults are enough
        assert method_from({"method": name.rpartition(".")[2], **method.example}) == original


@pytest.mark.parametrize(
    "text",
    ["method: svd", "- svd", "3", "", "- - method: svd", "a: [svd]", "{unclosed", "\x00"],
    ids=["no list", "a name", "a number", "nothing", "a list in a list", "names in a set", "no YAML", "bytes"],
)
def test_files_that_are_no_recipe_are_refused(text: str, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRecipe, match="the recipe must be a"):
        Recipe.read_several(tmp_path / "recipe.yaml")
    with pytest.raises(
        InvalidRecipe, match="one recipe must be given" if text == "a: [svd]" else "the recipe must be a"
    ):
        Recipe.read(tmp_path / "recipe.yaml")


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(InvalidRecipe, match=r"the recipe must exist, but got .*nowhere\.yaml; check the path"):
        Recipe.read(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("first", "second"), [(Fake, Shape), (Heal, Fake), (Store, Heal), (Store, Shape)], ids=lambda one: one.__name__
)
def test_steps_whose_stage_falls_are_refused(first: type[Fake], second: type[Fake]):
    message = rf"\({second.stage.name}\) must come before .* \({first.stage.name}\), but got it after; swap the two"
    with pytest.raises(InvalidRecipe, match=message):
        Recipe((first(), second()))
    Recipe((second(), first()))
    with pytest.raises(InvalidRecipe):
        Recipe((Shape(), first(), first(), second()))


def test_equal_stages_may_follow_each_other():
    assert len(Recipe((Shape(), Shape(), Fake(), Fake(amount=1), Heal(), Store())).methods) == 6


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(), "needs a teacher, but got none"),
        (Resources(teacher=nn.Identity()), "needs train data, but got none; give --task or --train-file"),
        (Resources(teacher=nn.Identity(), calibration=tiny_batches()), "needs train data, but got none"),
    ],
)
def test_missing_resources_are_asked_for_before_any_work(
    resources: Resources, message: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_model):
        raise AssertionError("the model must not even be copied")

    monkeypatch.setattr(recipe_module, "copy_sharing_parameters", refuse)
    recipe = Recipe((Shape(), Heal()))
    with pytest.raises(MissingResource, match=message):
        recipe.apply(tiny_model("bert"), resources)
    assert Fake.seen == []
    assert recipe.needs == {"train", "teacher"}


@pytest.mark.parametrize("method", [Drone(keep=0.5), Kfac(keep=0.5)], ids=str)
def test_missing_calibration_is_asked_for_before_any_work(method: Method, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipe_module, "copy_sharing_parameters", None)
    with pytest.raises(MissingResource, match=rf"{method.name()} needs calibration data, but got none"):
        Recipe((Svd(keep=0.9), method)).apply(tiny_model("bert"), Resources())


def test_every_step_gets_what_it_declares_and_nothing_else():
    resources = Resources(
        calibration=tiny_batches(), train=tiny_batches(), validation=tiny_batches(), teacher=nn.Identity(), seed=7
    )
    Recipe((Shape(), Heal())).apply(tiny_model("bert"), resources)
    (first, plain), (second, trained) = Fake.seen
    assert (first, second) == ("Shape", "Heal")
    assert plain == Resources(seed=7)
    assert (trained.train, trained.teacher, trained.seed) == (resources.train, resources.teacher, 7)
    assert trained.calibration is trained.validation is None


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("svdd", "svd"), ("drone2", "drone"), ("factorization.dron", r"factorization\.drone"), ("kfca", "kfac")],
)
def test_unknown_methods_are_refused_with_the_nearest_names(name: str, nearest: str):
    with pytest.raises(
        UnknownName, match=rf"the method must be a known name, but got '{name}'; did you mean .*{nearest}"
    ):
        method_named(name)


@pytest.mark.parametrize("entry", [{"method": "qqqqqq"}, {}, {"keep": 0.5}])
def test_without_anything_near_all_names_are_given(entry: dict):
    with pytest.raises(UnknownName, match=r"choose one of .*drone.*kfac.*svd"):
        Recipe.from_list([entry])


def test_unknown_and_missing_parameters_are_refused():
    with pytest.raises(
        InvalidParameter,
        match=r"factorization\.svd takes the parameters keep, allocation, include, .*, but got kep=0\.5",
    ):
        Recipe.from_list([{"method": "svd", "kep": 0.5}])
    with pytest.raises(
        InvalidParameter,
        match=r"keep or speedup must be given with allocation=uniform, but got none; such as keep=0\.4",
    ):
        Recipe.from_list([{"method": "svd"}])
    with pytest.raises(InvalidParameter, match="0 < keep <= 1 must hold, but got keep=2"):
        Recipe.from_list([{"method": "svd", "keep": 2}])


RENAMED = [
    (
        {"method": "kmeans", "clusters": 8, "start": "linear"},
        {"n_clusters": 8, "init": "linear"},
        r"^clustering\.kmeans: clusters=8, start='linear' is now n_clusters=8, init='linear'; 0\.3 drops the old name$",
    ),
    (
        {"method": "structure", "keep": 0.5, "structures": ["neurons", "nothing"]},
        {"keep": 0.5, "structures": ["neurons", "drop"]},
        r"^pruning\.structure: structures=\['neurons', 'nothing'\] is now structures=\['neurons', 'drop'\]; 0\.3 drops",
    ),
    (
        {"method": "structure", "keep": 0.5, "structures": "nothing"},
        {"keep": 0.5, "structures": ["drop"]},
        r"structures='nothing' is now structures='drop'; 0\.3 drops",
    ),
]


@pytest.mark.parametrize(("entry", "today", "warning"), RENAMED)
def test_a_parameter_under_its_old_name_is_taken_with_a_warning(entry: dict, today: dict, warning: str):
    with pytest.warns(FutureWarning, match=warning):
        (method,) = Recipe.from_list([entry]).methods
    assert method == method_from({"method": entry["method"], **today})
    assert today.items() <= method.to_dict().items()
    given = {key: value for key, value in entry.items() if key != "method"}
    with pytest.warns(FutureWarning, match=warning):
        assert method_named(entry["method"])(**given) == method


def test_a_parameter_under_both_names_is_refused():
    with pytest.raises(InvalidParameter, match=r"^n_clusters must be given once, but got clusters too, its old name; "):
        Recipe.from_list([{"method": "kmeans", "clusters": 8, "n_clusters": 8}])


@pytest.mark.parametrize("method", all_methods().values(), ids=lambda method: method.name())
def test_old_names_stand_for_parameters_and_values_that_there_are(method: type[Method]):
    known = {row.name: row for row in parameters(method)}
    assert set(method.renamed.values()) <= set(known) and not set(method.renamed) & set(known)
    assert set(method.renamed_choices) <= set(known)


@pytest.mark.parametrize("method", all_methods().values(), ids=lambda method: method.name())
def test_keep_is_a_share_of_weights_and_says_of_which(method: type[Method]):
    for row in parameters(method):
        if row.name == "keep":
            assert re.match(r"Fraction of the weights of .+ to keep", row.meaning) and row.stated == "0 < keep <= 1"
            assert issubclass(method, KeepsShare)


@pytest.mark.parametrize("method", [Svd(keep=0.3), Drone(keep=0.3), Kfac(keep=0.3), Shift()], ids=str)
def test_the_original_is_unchanged(method: Method):
    model = tiny_model("bert").train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    compressed = Recipe((method,)).apply(model, Resources(calibration=tiny_batches()))
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    mine = {parameter.data_ptr() for parameter in model.parameters()}
    assert not mine & {parameter.data_ptr() for parameter in compressed.parameters()}


def test_the_result_is_in_eval_mode_whatever_a_step_did():
    found = Recipe((Shape(), Svd(keep=0.4))).apply(tiny_model("bert"), Resources())
    assert not any(module.training for module in found.modules())


def test_the_empty_recipe_is_the_baseline():
    model, batch = tiny_model("bert"), tiny_batches().batches[0]
    found = Recipe().apply(model, Resources())
    with torch.no_grad():
        assert torch.equal(found(**batch).logits, model(**batch).logits)
    assert found is not model
    assert str(Recipe()) == "nothing"
    assert Recipe().needs == frozenset()


def test_steps_report_what_they_did():
    model, steps = tiny_model("bert"), list[Step]()
    found = Recipe((Shape(), Svd(keep=0.4, include="*.0.*"), Drone(keep=0.5, include="*.1.*"))).apply(
        model, Resources(calibration=tiny_batches()), report=steps.append
    )
    assert [step.layers for step in steps] == [0, 6, 6]
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (model, found)]
    assert (steps[0].parameters_before, steps[-1].parameters_after) == tuple(sizes)
    assert steps[0].parameters_after == steps[1].parameters_before > steps[2].parameters_before
    assert all(step.seconds >= 0 for step in steps)
    assert steps[0].bytes_before == 4 * sizes[0] and steps[-1].bytes_after == 4 * sizes[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["half", "dynamic_int8", "kmeans", "weight_only", "svd"])
def test_steps_tell_the_bytes_that_the_file_has(tmp_path, tokenizer, name, dtype):
    """What is stored in fewer bits has as many parameters as before."""
    save(classifier().to(dtype), tokenizer, tmp_path / "dense")
    method = method_named(name)
    recipe, new = Recipe((method(**method.example),)), tmp_path / "new"
    [step] = whet.compress(tmp_path / "dense", recipe, new, calibration=None).steps
    for told, folder in ((step.bytes_before, "dense"), (step.bytes_after, "new")):
        with (tmp_path / folder / "model.safetensors").open("rb") as file:
            header = 8 + int.from_bytes(file.read(8), "little")
        assert told == pytest.approx((tmp_path / folder / "model.safetensors").stat().st_size - header, rel=0.05)


def tied(family: str) -> nn.Module:
    small = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=16, **small))
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
        **small,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_tied_weights_stay_tied(family: str):
    model = tied(family)
    found = Recipe((Svd(keep=0.4),)).apply(model, Resources())
    assert found.get_output_embeddings().weight is found.get_input_embeddings().weight
    assert found.get_input_embeddings().weight is not model.get_input_embeddings().weight
    assert torch.equal(found.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_lossless_step_that_can_do_nothing_is_left_out_of_a_longer_recipe(capsys):
    """A tagger's head reads every token, so that the last block must compute all of them."""
    tagger = BertForTokenClassification(BertConfig(**SMALL_BERT)).eval()
    first_token = {"method": "lossless.first_token"}
    recipe = Recipe.from_list([{"method": "neurons", "keep": 0.5}, first_token])
    resources = Resources(calibration=tiny_batches())
    both, alone = (Recipe(methods).apply(tagger, resources) for methods in (recipe.methods, recipe.methods[:1]))
    assert "note: lossless.first_token is left out: the head must read the first token" in capsys.readouterr().err
    batch = tiny_batches().batches[0]
    with torch.inference_mode():
        assert torch.equal(both(**batch).logits, alone(**batch).logits)
    with pytest.raises(NothingToCompress, match="the head must read the first token"):
        Recipe.from_list([first_token]).apply(tagger, resources)


def test_recipes_read_like_sentences():
    text = str(Recipe((Svd(keep=0.5), Kfac(keep=0.25))))
    assert text.startswith("factorization.svd(keep=0.5")
    assert " → factorization.kfac(keep=0.25" in text


def test_the_nearest_recipe_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRecipe, match="that comes with whet, but got 'cours'; did you mean course"):
        Recipe.read("cours")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_found_by_name(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    recipes = Recipe.read_several(Path(path.stem))
    assert len(recipes) > 1 or len(Recipe.read(Path(path.stem)).methods) > 1
    # a folder of results may have the name of a recipe, and a file of one's own goes first
    Path(path.stem).mkdir()
    assert Recipe.read_several(Path(path.stem)) == recipes
    Path(path.stem).rmdir()
    Path(path.stem).write_text("[]")
    assert Recipe.read(Path(path.stem)) == Recipe()
    with pytest.raises(InvalidRecipe, match="the recipe must exist, but got elsewhere"):
        Recipe.read(Path("elsewhere") / path.stem)
