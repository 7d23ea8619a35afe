from pathlib import Path

import pytest

from helpers import FAMILIES, tiny_batches, tiny_model
from whet.method import Stage
from whet.recipe import Recipe
from whet.resources import Resources
from whet.space import PATH, STEPS, Space, Structure


def test_the_first_structure_keeps_everything():
    assert Space(first_token=False).recipe(Structure()) == Recipe()
    assert [one.lossless for one in Space().recipe(Structure()).methods] == [True]
    assert Space().name(Structure()) == "all kept"


def test_the_shipped_recipe_is_tried_after_the_original():
    space = Space()
    second = space.promising({Structure(): 1.0})
    assert second is not None and space.recipe(second) == Recipe.read(Path("structured"))


@pytest.mark.parametrize(
    "space", [Space(recovery=0.5), Space(heads=False), Space(neurons=False), Space(low_rank=False)]
)
def test_every_structure_has_a_recipe_and_a_name_of_its_own(space):
    every = space.every()
    recipes = {str(space.recipe(one)) for one in every}
    assert len(every) == len(set(every)) == len(recipes) == len({space.name(one) for one in every})
    assert all(level <= most for one in every for level, most in zip(one, space.most, strict=True))
    for one in every:
        stages = [method.stage for method in space.recipe(one).methods]
        assert stages == sorted(stages)
        assert (stages[-1:] == [Stage.TRAINING]) == bool(one.recovery)
        assert space.nearest(one) == one


@pytest.mark.parametrize("good", range(len(PATH) + 1))
def test_bisection_finds_where_quality_crosses_the_bar(good):
    """Of nine structures, five at most are tried."""
    space, path = Space(), [Structure(*levels) for levels in PATH]
    held: dict[Structure, float] = {}
    while (one := space.promising(held)) in path and one not in held:
        held[one] = 1.0 if path.index(one) < good else -1.0
    assert len(held) <= 5
    assert good == 0 or held[path[good - 1]] > 0
    assert good == len(path) or held[path[good]] < 0


def test_after_the_path_recovery_goes_beyond_it():
    space, path = Space(recovery=0.5), [Structure(*levels) for levels in PATH]
    values = {one: float(4 - i) for i, one in enumerate(path)}
    tried = []
    for _ in range(3):
        tried.append(space.promising(values))
        values[tried[-1]] = 5.0 if len(tried) < 3 else -1.0
    assert tried == [one._replace(recovery=1) for one in path[4:7]]


def test_then_come_the_neighbours_of_the_best():
    space, path = Space(), [Structure(*levels) for levels in PATH]
    values = {one: float(i + 1) if i < 4 else -1.0 for i, one in enumerate(path)}
    best = path[3]
    tried = []
    while (one := space.promising(values)) is not None:
        tried.append(one)
        values[one] = -1.0
    assert tried == [Structure(best.neurons + a, best.heads + b) for a, b in STEPS]
    values[tried[0]] = 99.0  # a better one has neighbours of its own
    again = space.promising(values)
    assert again is not None and abs(again.neurons - tried[0].neurons) + abs(again.heads - tried[0].heads) <= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_can_lose(family):
    space = Space.of(tiny_model(family), Resources(calibration=tiny_batches()), recovery=0.0)
    encoder = family not in ("gpt2", "llama")
    assert space == Space(neurons=True, heads=encoder, low_rank=True, first_token=encoder, recovery=0.0)
    assert space.most.recovery == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_finds_the_attention_of_a_family(family):
    model = tiny_model(family)
    space = Space(first_token=False)
    found = space.recipe(Structure(low_rank=1)).apply(model, Resources(calibration=tiny_batches()))
    kept, before = (sum(p.numel() for p in one.parameters()) for one in (found, model))
    assert kept < before
