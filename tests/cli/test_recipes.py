"""The options that make several recipes."""

import json

import pytest

from whet.cli.recipes import RecipesOptions
from whet.errors import InvalidParameter, InvalidRecipe, UnknownName
from whet.methods.recipe import Recipe


def test_each_method_meets_each_budget():
    named = RecipesOptions(method="svd, factorization.kfac", keep="0.5,.25").load()
    assert list(named) == ["svd-0.5", "svd-0.25", "kfac-0.5", "kfac-0.25"]
    assert [recipe.to_list()[0]["keep"] for recipe in named.values()] == [0.5, 0.25] * 2


def test_budgets_of_time_have_a_name_of_their_own():
    [(name, recipe)] = RecipesOptions(method="structure", speedup="2").load().items()
    assert (name, recipe.to_list()[0]["speedup"]) == ("structure-2x", 2)


def test_a_method_without_a_budget_is_taken_as_it_is():
    assert list(RecipesOptions(method="dynamic_int8").load()) == ["dynamic_int8"]


def test_files_sets_and_methods_add_up(tmp_path):
    (tmp_path / "own.json").write_text(json.dumps([{"method": "svd", "keep": 0.3}]))
    named = RecipesOptions(recipe=("course", str(tmp_path / "own.json"), "structured"), method="svd", keep="0.1").load()
    assert list(named) == [*Recipe.read_several("course"), "own", "structured", "svd-0.1"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, InvalidRecipe, "--recipe or --method must be given, but got none; try --recipe course"),
        ({"keep": "0.5"}, InvalidRecipe, "belong to --method"),
        ({"method": "svd", "keep": "0.5", "speedup": "2"}, InvalidRecipe, "got both"),
        ({"method": "svd", "keep": "half"}, InvalidParameter, "must be numbers, but got 'half'"),
        ({"method": "svd", "keep": "1.5"}, InvalidParameter, "keep <= 1 must hold"),
        ({"method": "svd,svd", "keep": "0.5"}, InvalidRecipe, "but got svd-0.5 twice"),
        ({"method": "nope", "keep": "0.5"}, UnknownName, "nope"),
        ({"recipe": ("course", "course")}, InvalidRecipe, "but got int8 twice"),
        ({"recipe": ("nowhere.yaml",)}, InvalidRecipe, "must exist"),
    ],
)
def test_what_does_not_go_together_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        RecipesOptions(**given).load()
