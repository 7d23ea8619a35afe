from typing import Any

import pytest
import torch

from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidData, InvalidParameter, NothingToCompress
from whet.methods._candidates import accepted_ranks, planned_ranks, timed_ranks
from whet.methods.factorization.drone import Drone
from whet.methods.factorization.svd import Svd
from whet.models.architecture import Architecture, dense_weight
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.low_rank import break_even
from whet.tasks.data import Batches

MODEL = tiny_model("bert")
NAMES = Architecture.of(MODEL).linears


@pytest.mark.parametrize("shape", [(768, 768), (3072, 768), (768, 3072), (384, 384), (40, 9), (1, 8), (3, 3)])
@pytest.mark.parametrize("ranks", [timed_ranks, accepted_ranks])
def test_grids_rise_and_stay_below_break_even(ranks: Any, shape: tuple[int, int]):
    weight = torch.empty(shape)
    grid = ranks(weight)
    assert grid == sorted(set(grid))
    assert all(0 < rank <= break_even(weight) for rank in grid)
    assert all(rank * sum(shape) < weight.numel() for rank in timed_ranks(weight))
    if min(shape) > 8:
        assert len(grid) > 3


def test_the_first_wildcard_that_matches_counts():
    found = planned_ranks(MODEL, NAMES, {"*.0.*.query": 3, "*.query": 5, "*.key": 0.25})
    assert found == {
        "bert.encoder.layer.0.attention.self.query": 3,
        "bert.encoder.layer.1.attention.self.query": 5,
        "bert.encoder.layer.0.attention.self.key": 8,
        "bert.encoder.layer.1.attention.self.key": 8,
    }
    # in the order of the model, not of the plan
    assert list(found) == [name for name in NAMES if name in found]


@pytest.mark.parametrize(
    ("ranks", "error", "message"),
    [
        ({"*.query": 0}, InvalidParameter, r"1 <= rank <= 16 must hold for .*query \(32x32\), .* but got 0; give less"),
        ({"*.query": 17}, InvalidParameter, r"1 <= rank <= 16 must hold for .*query \(32x32\), .* but got 17"),
        ({"*.query": 33}, InvalidParameter, r"1 <= rank <= 16 must hold for .*query"),
        ({"*.query": -1}, InvalidParameter, r"1 <= rank <= 16 must hold"),
        (
            {"*.query": True},
            InvalidParameter,
            r"ranks must be a mapping from text to numbers, .*such as ranks={\"\*\": 96}",
        ),
        ({"*.query": 2.5}, InvalidParameter, r"1 <= rank <= 16 must hold .* but got 2.5"),
        ({"*.query": 0.01}, InvalidParameter, r"1 <= rank <= 16 must hold .* but got 0.01"),
        ({"*.query": "half"}, InvalidParameter, r"ranks must be a mapping from text to numbers, but got .*half"),
        (
            {"*.conv": 3},
            NothingToCompress,
            r"every wildcard of ranks must match a layer, but got '\*\.conv'; the linear",
        ),
        ({"*": 3, "*.query": 4}, NothingToCompress, r"every wildcard of ranks must match a layer, but got '\*\.query'"),
        ({}, InvalidParameter, r"ranks must name at least one layer, but got none"),
    ],
)
def test_plans_that_cannot_be_are_refused(ranks: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Svd(allocation="ranks", ranks=ranks).apply(copy_sharing_parameters(MODEL), Resources())


def test_the_plan_is_what_the_model_gets():
    method = Svd(allocation="ranks", ranks={"*.query": 3, "*.intermediate.dense": 0.5})
    compressed = method.apply(copy_sharing_parameters(MODEL), Resources())
    for name in NAMES:
        layer = compressed.get_submodule(name)
        if name.endswith("query"):
            assert isinstance(layer, LowRank)
            assert layer.rank == 3
        elif name.endswith("intermediate.dense"):
            assert isinstance(layer, LowRank)
            assert layer.rank == 16
        else:
            assert dense_weight(layer) is not None


def test_fewer_tokens_than_the_largest_rank_are_refused():
    whole = tiny_batches(count=1, batch_size=2)
    few = Batches([{key: value[:, :4] for key, value in batch.items()} for batch in whole], whole.labels)
    assert 0 < few.tokens < 12
    method = Drone(allocation="ranks", ranks={"*.query": 12})
    with pytest.raises(InvalidData, match=r"calibration must have as many tokens as the largest rank, 12, but got"):
        method.apply(copy_sharing_parameters(MODEL), Resources(calibration=few))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"allocation": "ranks"},
            r"ranks must be given with allocation=ranks, but got none; such as ranks=\{'\*': 96\}",
        ),
        ({"allocation": "by_time"}, r"speedup must be given with allocation=by_time, but got none; such as speedup=2"),
        ({"allocation": "algorithm_2"}, r"allowed_kl must be given with allocation=algorithm_2, but got none"),
        ({}, r"keep or speedup must be given with allocation=uniform, but got none; such as keep=0.4 or speedup=2"),
        ({"keep": 0.4, "speedup": 2}, r"keep or speedup must be given alone with .*, but got keep=0.4, speedup=2"),
        ({"keep": 0.4, "ranks": {"*": 2}}, r"must be given alone with .*, but got keep=0.4, ranks=\{'\*': 2\}"),
        ({"keep": 0.4, "allocation": "by_time"}, r"speedup must be given with allocation=by_time, but got none"),
        ({"speedup": 1, "allocation": "by_time"}, r"1 < speedup <= 10000 must hold, but got speedup=1"),
        ({"keep": 0.4, "calibration": "twice"}, r"calibration must be one of one_shot, sequential, but got"),
    ],
)
def test_every_allocation_has_its_own_budget(given: dict[str, Any], message: str):
    with pytest.raises(InvalidParameter, match=message):
        Svd(**given)
