import pytest

from helpers import FAMILIES, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.methods.base import Stage
from whet.methods.recipe import Recipe
from whet.searching.space import LESS, TABLES, Space, Structure
from whet.searching.targets import Target

INT8 = Target("onnxruntime", "int8")
LINE = [Structure(blocks) for blocks in range(len(LESS))]


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


@pytest.mark.parametrize("good", range(1, len(LINE) + 1))
def test_bisection_finds_where_quality_crosses_the_bar(good):
    """Of fourteen structures, five at most are tried."""
    space = Space()
    held: dict[Structure, float] = {}
    while len(known := bounds(held)) == 2 and known[1] - known[0] > 1:
        one = space.promising(held)
        assert one in LINE and one not in held
        held[one] = 1.0 if LINE.index(one) < good else -1.0
    assert len(held) <= 5
    assert bounds(held) == (good - 1, good)


def bounds(held: dict[Structure, float]) -> tuple[int, int]:
    """The last structure of the line that holds the bar, and the first that does not."""
    good = [LINE.index(one) for one, value in held.items() if value > 0]
    bad = [LINE.index(one) for one, value in held.items() if value <= 0]
    return max(good, default=-1), min(bad, default=len(LINE))


def test_a_recovery_goes_on_where_the_bar_was_crossed():
    space = Space(recovery=0.5)
    values = {one: 4.0 if one.blocks < 5 else -1.0 for one in LINE}
    tried = []
    for _ in range(4):
        one = space.promising(values)
        assert one is not None and one.recovery
        tried.append(one.blocks)
        values[one] = 5.0 if one.blocks < 9 else -1.0
    assert tried == [5, 10, 8, 9]


def test_the_whole_model_is_not_recovered():
    space = Space(recovery=0.5)
    assert space.promising({Structure(): -1.0}) == Structure(1, 0, 1)


def test_then_come_the_neighbours_of_the_best():
    space = Space(table=True)
    values = {one: float(one.blocks + 1) if one.blocks < 4 else -1.0 for one in LINE}
    tried = []
    while (one := space.promising(values)) is not None:
        tried.append(one)
        values[one] = -1.0
    assert tried == [Structure(3, 1), Structure(2, 1)]
    values[tried[0]] = 99.0  # a better one has neighbours of its own
    assert space.promising(values) == Structure(4, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_can_lose(family, monkeypatch):
    monkeypatch.setattr("whet.searching.space.multiplies", lambda kind: False)
    resources = Resources(calibration=tiny_batches(), train=tiny_batches())
    encoder = family not in ("gpt2", "llama")
    for bytes_count in (False, True):
        space = Space.of(tiny_model(family), resources, recovery=0.0, bytes_count=bytes_count)
        assert space == Space(heads=encoder, table=bytes_count, first_token=encoder)
        assert space.most == Structure(len(LESS) - 1, (len(TABLES) - 1) * bytes_count)


@pytest.mark.parametrize(("can", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_recovery_is_in_bf16_where_the_processor_has_it(monkeypatch, can, precision):
    monkeypatch.setattr("whet.searching.space.multiplies", lambda kind: can and kind == "bf16")
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
