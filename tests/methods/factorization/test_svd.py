import pytest
import torch
from torch import Tensor

from helpers import tiny_batches, tiny_model
from laws import SHAPES, draw
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.methods.factorization.svd import Svd
from whet.numerics.low_rank import factors_at_rank, svd_of_weight


def product(weight: Tensor, rank: int) -> Tensor:
    u, v, shift = factors_at_rank(weight, svd_of_weight(weight), rank)
    assert u.shape == (weight.shape[0], rank)
    assert v.shape == (rank, weight.shape[1])
    assert shift is None
    return u @ v


@pytest.mark.parametrize("shape", SHAPES)
def test_every_rank_agrees_with_the_truncated_svd(shape: tuple[int, int]):
    weight = draw(*shape)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    for rank in range(1, min(shape) + 1):
        truncated = u[:, :rank] * s[:rank] @ vh[:rank]
        torch.testing.assert_close(product(weight, rank), truncated, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_losses_are_the_share_of_the_squared_weights_that_is_lost(shape: tuple[int, int]):
    weight = draw(*shape)
    losses, total = svd_of_weight(weight).losses, weight.square().sum()
    assert len(losses) == min(shape) + 1
    assert float(losses[0]) == pytest.approx(1)
    assert losses[-1] == 0
    for rank in range(1, min(shape) + 1):
        error = (weight - product(weight, rank)).square().sum() / total
        torch.testing.assert_close(error, losses[rank], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(losses[rank], torch.linalg.svdvals(weight)[rank:].square().sum() / total)


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_is_exact(shape: tuple[int, int]):
    weight = draw(*shape)
    torch.testing.assert_close(product(weight, min(shape)), weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_the_same_rank_is_better(shape: tuple[int, int]):
    weight, rank = draw(*shape), 3
    u, v, _ = factors_at_rank(weight, svd_of_weight(weight), rank)
    least = (weight - u @ v).norm()
    for seed in range(30):
        du, dv = draw(*u.shape, seed=seed + 1), draw(*v.shape, seed=seed + 100)
        for size in (1e-3, 1e-1, 1.0):
            assert (weight - (u + size * du) @ (v + size * dv)).norm() > least
        # the best that can be done with random columns
        q = torch.linalg.qr(du).Q
        assert (weight - q @ q.T @ weight).norm() > least


def test_the_scale_of_a_layer_does_not_change_its_losses():
    weight = draw(8, 5)
    torch.testing.assert_close(svd_of_weight(weight * 1e6).losses, svd_of_weight(weight).losses)


def test_wide_and_tall_are_one_problem():
    weight = draw(8, 5)
    torch.testing.assert_close(product(weight.T, 2), product(weight, 2).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_without_full_rank_lose_nothing_from_their_rank_on(shape: tuple[int, int]):
    weight = draw(shape[0], 2, seed=1) @ draw(2, shape[1], seed=2)
    assert svd_of_weight(weight).losses[2] < 1e-14
    for rank in range(2, min(shape) + 1):
        torch.testing.assert_close(product(weight, rank), weight, rtol=0, atol=1e-7)


def test_a_weight_of_zeros_gives_zeros():
    weight = torch.zeros(4, 6)
    assert svd_of_weight(weight).losses.tolist() == [0] * 5
    assert product(weight, 2).eq(0).all()


def test_the_decomposition_of_fp32_weights_is_in_float64():
    weight = draw(6, 4).float()
    assert {part.dtype for part in svd_of_weight(weight)[:3]} == {torch.float64}
    assert factors_at_rank(weight, svd_of_weight(weight), 2).u.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0.0}, r"0 < keep <= 1 must hold, but got keep=0.0; "),
        ({"keep": 1.01}, r"0 < keep <= 1 must hold, but got keep=1.01"),
        ({"keep": -1}, r"0 < keep <= 1 must hold, but got keep=-1"),
        ({"keep": float("nan")}, r"0 < keep <= 1 must hold, but got keep=nan"),
        ({"keep": "half"}, r"keep must be of type float, but got keep='half'"),
        ({"keep": True}, r"keep must be of type float, but got keep=True"),
        (
            {"keep": 0.5, "allocation": "fair"},
            r"allocation must be one of uniform, by_loss, by_time, algorithm_2, ranks, but got allocation='fair'",
        ),
        ({"keep": 0.5, "include": 3}, r"include must be of type str, but got include=3"),
    ],
)
def test_bad_parameters_are_refused(given: dict, message: str):
    with pytest.raises(InvalidParameter, match=message):
        Svd(**given)


def test_it_needs_no_data():
    model = tiny_model("bert")
    assert Svd(keep=0.5).needs == frozenset()
    logits = Svd(keep=0.5).apply(model, Resources())(**tiny_batches().batches[0]).logits
    assert logits.isfinite().all()
