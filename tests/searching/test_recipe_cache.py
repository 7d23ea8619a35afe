import numpy as np
import pytest
import torch

from helpers import linears, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.evaluation.timing import RuntimeTimer
from whet.methods.pruning import _dissection, _structured
from whet.methods.recipe import Recipe
from whet.searching.recipe_cache import SIZE, CachedRecipes
from whet.searching.space import Space, Structure

STRUCTURES = [Structure(), Structure(1), Structure(4), Structure(9), Structure(2, 1), Structure(3, 0, 1), Structure(4)]


@pytest.fixture
def resources() -> Resources:
    return Resources(
        calibration=tiny_batches(), train=tiny_batches(count=2, seed=3), teacher=tiny_model("bert"), seed=1
    )


def test_models_are_those_of_the_recipes(resources):
    baseline, space = tiny_model("bert"), Space(recovery=0.5, table=True)
    before = {name: weight.clone() for name, weight in baseline.state_dict().items()}
    recipes = CachedRecipes(baseline, resources)
    for structure in STRUCTURES:
        recipe = space.recipe(structure, None)
        found, wanted = (one.apply(*rest) for one, rest in ((recipes, (recipe,)), (recipe, (baseline, resources))))
        assert not found.training
        states = found.state_dict(), wanted.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), structure
        assert not {id(one) for one in found.parameters()} & {id(one) for one in baseline.parameters()}
    assert all(torch.equal(weight, before[name]) for name, weight in baseline.state_dict().items())


@pytest.mark.parametrize(("method", "module"), [("structure", _dissection), ("neurons", _structured)])
def test_what_does_not_depend_on_the_budget_is_learnt_once(resources, monkeypatch, method, module):
    passes = []
    collect = module.collect_moments
    monkeypatch.setattr(module, "collect_moments", lambda *args, **rest: passes.append(1) or collect(*args, **rest))
    recipes, first = CachedRecipes(tiny_model("bert"), resources), {"method": "first_token"}
    for keep in (0.8, 0.6, 0.4):
        recipes.apply(Recipe.from_list([{"method": method, "keep": keep}]))
    assert len(passes) == 1
    for keep in (0.8, 0.6):
        recipes.apply(Recipe.from_list([first, {"method": method, "keep": keep}]))
    assert len(passes) == 2
    for damping in (0.1, 0.2, 0.3):
        recipes.apply(Recipe.from_list([{"method": method, "keep": 0.5, "damping": damping}]))
    assert len(passes) == 5 and len(recipes._learnt) == SIZE


def test_every_speed_is_that_of_the_whole_model(resources, monkeypatch):
    """What was learnt for a size is of no use for a speed, and what became of one copy is no other's whole model."""
    monkeypatch.setattr(RuntimeTimer, "time", lambda _, runs: np.array([[linears(run) for run in runs]]))
    monkeypatch.setattr(RuntimeTimer, "opened", lambda _, model: model)
    model = tiny_model("bert")
    recipes = CachedRecipes(model, resources)
    for budget in ({"keep": 0.9}, {"speedup": 1.6}, {"speedup": 1.3}):
        small = recipes.apply(Recipe.from_list([{"method": "structure", **budget}]))
        reached = linears(model) / linears(small)
        assert 0.98 * budget.get("speedup", 1) <= reached <= 1.15 * budget.get("speedup", 1)
    assert len(recipes._learnt) == 2
