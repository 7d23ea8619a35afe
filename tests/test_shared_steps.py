import pytest
import torch

from helpers import tiny_batches, tiny_model
from whet import structured
from whet.resources import Resources
from whet.shared_steps import KEPT, SharedSteps
from whet.space import Space, Structure

STRUCTURES = [
    Structure(),
    Structure(1),
    Structure(2, 2),
    Structure(3, 2),
    Structure(2, 4),
    Structure(0, 3),
    Structure(2, 0, 1),
    Structure(1, 1, 0, 1),
    Structure(2, 2),
]


@pytest.fixture
def resources() -> Resources:
    return Resources(
        calibration=tiny_batches(), train=tiny_batches(count=2, seed=3), teacher=tiny_model("bert"), seed=1
    )


def test_models_are_those_of_the_recipes(resources):
    original, space = tiny_model("bert"), Space(recovery=0.5)
    before = {name: weight.clone() for name, weight in original.state_dict().items()}
    steps = SharedSteps(original, resources)
    for structure in STRUCTURES:
        recipe = space.recipe(structure)
        found, wanted = (one.apply(*rest) for one, rest in ((steps, (recipe,)), (recipe, (original, resources))))
        assert not found.training
        states = found.state_dict(), wanted.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), structure
        assert not {id(one) for one in found.parameters()} & {id(one) for one in original.parameters()}
    assert all(torch.equal(weight, before[name]) for name, weight in original.state_dict().items())


def test_the_common_beginning_is_computed_once(resources, monkeypatch):
    passes = []
    collect = structured.collect
    monkeypatch.setattr(structured, "collect", lambda *args, **rest: passes.append(1) or collect(*args, **rest))
    steps, space = SharedSteps(tiny_model("bert"), resources), Space()
    for neurons in (1, 2, 3):
        steps.apply(space.recipe(Structure(neurons)))
    assert len(passes) == 1
    for heads in (1, 2, 3):
        steps.apply(space.recipe(Structure(2, heads)))
    assert len(passes) == 2
    for neurons in (1, 2, 3):
        steps.apply(space.recipe(Structure(neurons, 1)))
    assert len(passes) == 4 and len(steps._parts) == KEPT
