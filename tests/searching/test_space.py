import pytest

from helpers import FAMILIES, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.methods.base import Stage
from whet.methods.recipe import Recipe
from whet.searching.space import LESS, TABLES, Space, Structure
from whet.searching.targets import Target

INT8 = Target("onnxruntime", "int8")


def test_the_first_structure_keeps_everything():
    assert Space(first_token=False).recipe(Structure(), INT8) == Recipe()
    assert [one.lossless for one in Space().recipe(Structure(), INT8).methods] == [True]
    assert Space().name(Structure()) == "all kept"


def test_time_counts_where_it_was_asked_for_and_bytes_elsewhere():
    entry = Space(first_token=False).recipe(Structure(3), INT8).to_list()[0]
    assert (entry["speedup"], entry["runtime"], entry["precision"], entry["keep"]) == (LESS[3], *INT8, None)
    entry = Space(first_token=False).recipe(Structure(3), None).to_list()[0]
    assert (entry["speedup"], entry["keep"]) == (None, 1 / LESS[3])


@pytest.mark.parametrize("timed", [INT8, None])
@pytest.mark.parametrize("space", [Space(recovery=0.5), Space(heads=False), Space(blocks=False), Space(table=True)])
def test_every_structure_has_a_recipe_and_a_name_of_its_own(space, timed):
    every = space.every()
    recipes = {str(space.recipe(one, timed)) for one in every}
    assert len(every) == len(set(every)) == len(recipes) == len({space.name(one) for one in every})
    assert all(level <= most for one in every for level, most in zip(one, space.most, strict=True))
    for one in every:
        stages = [method.stage for method in space.recipe(one, timed).methods]
        assert stages == sorted(stages)
        assert (stages[-1:] == [Stage.TRAINING]) == bool(one.recovery)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_can_lose(family, monkeypatch):
    monkeypatch.setattr("whet.searching.space.supports_products", lambda kind: False)
    resources = Resources(calibration=tiny_batches(), train=tiny_batches())
    encoder = family not in ("gpt2", "llama")
    for bytes_count in (False, True):
        space = Space.of(tiny_model(family), resources, recovery=0.0, bytes_count=bytes_count)
        assert space == Space(heads=True, table=bytes_count, first_token=encoder)
        assert space.most == Structure(len(LESS) - 1, (len(TABLES) - 1) * bytes_count)


@pytest.mark.parametrize(("can", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_recovery_is_in_bf16_where_the_processor_has_it(monkeypatch, can, precision):
    monkeypatch.setattr("whet.searching.space.supports_products", lambda kind: can and kind == "bf16")
    resources = Resources(calibration=tiny_batches(), train=tiny_batches())
    space = Space.of(tiny_model("bert"), resources, recovery=0.5, bytes_count=False)
    assert space.recipe(Structure(recovery=1), None).to_list()[-1]["precision"] == precision


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_lose_blocks(family):
    model, resources = tiny_model(family), Resources(calibration=tiny_batches())
    space = Space.of(model, resources, recovery=0.0, bytes_count=False)
    found = space.recipe(Structure(3), None).apply(model, resources)
    kept, before = (sum(p.numel() for p in one.parameters()) for one in (found, model))
    assert kept < before
