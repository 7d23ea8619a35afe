import pytest
import torch
from torch import Tensor

from helpers import tiny_batches, tiny_model
from laws import SHAPES, TOKENS, calibration, draw, second_moment
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, MissingResource
from whet.methods.factorization.drone import Drone
from whet.models.architecture import dense_weight
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.low_rank import factors_at_rank, output_pca, svd_of_weight


def product(weight: Tensor, inputs: Tensor, rank: int) -> Tensor:
    u, v, shift = factors_at_rank(weight, output_pca(weight, second_moment(weight, inputs)), rank)
    assert u.shape == (weight.shape[0], rank)
    assert v.shape == (rank, weight.shape[1])
    assert shift is None
    return u @ v


def algorithm_1(weight: Tensor, inputs: Tensor, rank: int) -> Tensor:
    """DRONE's Algorithm 1, step by step, with the numerical ranks that it assumes."""

    def reduced(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        kept = int(torch.linalg.matrix_rank(matrix))
        return u[:, :kept], s[:kept], vh[:kept].T

    _, s_w, v_w = reduced(weight)
    u_x, s_x, _ = reduced(inputs)
    z = s_w[:, None] * (v_w.T @ u_x) * s_x
    u_z, s_z, vh_z = torch.linalg.svd(z, full_matrices=False)
    left = weight @ (v_w / s_w) @ (u_z[:, :rank] * s_z[:rank])
    right = (vh_z[:rank] / s_x) @ u_x.T
    return left @ right


def relative_error(weight: Tensor, other: Tensor, inputs: Tensor) -> float:
    return float(((weight - other) @ inputs).square().sum() / (weight @ inputs).square().sum())


@pytest.mark.parametrize("input_rank", [None, 4, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_calibration_outputs_agree_with_algorithm_1(shape: tuple[int, int], input_rank: int | None):
    weight, inputs = draw(*shape), calibration(shape[1], rank=input_rank)
    # Algorithm 1 has no factors of a rank above that of its inputs
    for rank in range(1, min(*shape, input_rank or min(shape)) + 1):
        ours, theirs = product(weight, inputs, rank) @ inputs, algorithm_1(weight, inputs, rank) @ inputs
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-8


@pytest.mark.parametrize("shape", SHAPES)
def test_ranks_above_that_of_the_inputs_stay_exact_on_them(shape: tuple[int, int]):
    weight, inputs = draw(*shape), calibration(shape[1], rank=3)
    for rank in range(3, min(shape) + 1):
        found = product(weight, inputs, rank)
        assert found.isfinite().all()
        assert relative_error(weight, found, inputs) < 1e-12
        # and directions that no input has must not blow up
        assert found.norm() < 3 * weight.norm()


@pytest.mark.parametrize("input_rank", [None, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_are_the_share_of_the_output_energy_that_is_lost(shape: tuple[int, int], input_rank: int | None):
    weight, inputs = draw(*shape), calibration(shape[1], rank=input_rank)
    losses = output_pca(weight, second_moment(weight, inputs)).losses
    assert len(losses) == min(shape) + 1
    singular = torch.linalg.svdvals(weight @ inputs).square()
    for rank in range(1, min(shape) + 1):
        optimum = float(singular[rank:].sum() / singular.sum())
        assert float(losses[rank]) == pytest.approx(optimum, rel=1e-8, abs=1e-12)
        assert relative_error(weight, product(weight, inputs, rank), inputs) == pytest.approx(
            optimum, rel=1e-8, abs=1e-12
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_is_exact(shape: tuple[int, int]):
    weight = draw(*shape)
    found = product(weight, calibration(shape[1]), min(shape))
    torch.testing.assert_close(found, weight, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_the_same_rank_is_better(shape: tuple[int, int]):
    weight, inputs, rank = draw(*shape), calibration(shape[1]), 3
    u, v, _ = factors_at_rank(weight, output_pca(weight, second_moment(weight, inputs)), rank)
    least = relative_error(weight, u @ v, inputs)
    assert least < relative_error(weight, factors_of_svd(weight, rank), inputs)
    for seed in range(30):
        du, dv = draw(*u.shape, seed=seed + 10), draw(*v.shape, seed=seed + 100)
        for size in (1e-3, 1e-1, 1.0):
            assert relative_error(weight, (u + size * du) @ (v + size * dv), inputs) > least
        # the best left factor for random right factors
        best = weight @ inputs @ torch.linalg.pinv(dv @ inputs)
        assert relative_error(weight, best @ dv, inputs) > least


def factors_of_svd(weight: Tensor, rank: int) -> Tensor:
    u, v, _ = factors_at_rank(weight, svd_of_weight(weight), rank)
    return u @ v


@pytest.mark.parametrize("shape", SHAPES)
def test_white_inputs_give_plain_svd(shape: tuple[int, int]):
    weight = draw(*shape)
    inputs = 3 * torch.eye(shape[1], dtype=torch.float64)
    for rank in range(1, min(shape) + 1):
        torch.testing.assert_close(product(weight, inputs, rank), factors_of_svd(weight, rank), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        output_pca(weight, second_moment(weight, inputs)).losses, svd_of_weight(weight).losses, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_scale_of_the_inputs_does_not_matter(shape: tuple[int, int]):
    weight, inputs = draw(*shape), calibration(shape[1])
    torch.testing.assert_close(product(weight, inputs * 1e4, 3), product(weight, inputs, 3), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_of_zeros_still_give_finite_factors(shape: tuple[int, int]):
    inputs = torch.zeros(shape[1], TOKENS, dtype=torch.float64)
    assert product(draw(*shape), inputs, 2).isfinite().all()


def test_dead_rows_stay_dead():
    for shape in SHAPES:
        weight = draw(*shape)
        weight[2] = 0
        found = product(weight, calibration(shape[1]), 3)
        torch.testing.assert_close(found[2], torch.zeros(shape[1]).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "rank"),
    [("intermediate.dense", 10), ("output.dense", 10), ("attention.self.key", 8)],
)
def test_in_a_model_it_is_optimal_on_the_real_tokens(name: str, rank: int):
    """Against the singular values of the layer's own outputs on every token that is no padding."""
    model, batches = tiny_model("bert"), tiny_batches()
    layer = f"bert.encoder.layer.0.{name}"
    weight, rows = dense_weight(model.get_submodule(layer)).double(), list[Tensor]()

    def keep(_module, inputs):
        rows.append(inputs[0])

    handle = model.get_submodule(layer).register_forward_pre_hook(keep)
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    handle.remove()
    real = torch.cat([row[batch["attention_mask"].bool()] for row, batch in zip(rows, batches, strict=True)]).double()
    share = rank * sum(weight.shape) / weight.numel()
    compressed = Drone(keep=share + 1e-9, include=layer).apply(
        copy_sharing_parameters(model), Resources(calibration=batches)
    )
    found = compressed.get_submodule(layer)
    assert isinstance(found, LowRank)
    assert found.rank == rank
    assert torch.equal(found.u.bias, model.get_submodule(layer).bias)
    singular = torch.linalg.svdvals(real @ weight.T).square()
    optimum = float(singular[rank:].sum() / singular.sum())
    own = (found.u.weight.double() @ found.v.weight.double()).detach()
    assert relative_error(weight, own, real.T) == pytest.approx(optimum, rel=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0}, r"0 < keep <= 1 must hold, but got keep=0"),
        (
            {"keep": 0.5, "allocation": None},
            r"allocation must be one of uniform, by_loss, by_time, algorithm_2, ranks, but got allocation=None",
        ),
    ],
)
def test_bad_parameters_are_refused(given: dict, message: str):
    with pytest.raises(InvalidParameter, match=message):
        Drone(**given)


def test_calibration_data_are_required():
    with pytest.raises(MissingResource, match="calibration data must be given, but got none"):
        Drone(keep=0.5).apply(tiny_model("bert"), Resources())
