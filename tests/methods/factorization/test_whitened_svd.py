import pytest
import torch
from torch import Tensor

from laws import SHAPES, calibration, draw, second_moment
from whet.methods.factorization.whitened_svd import whitened_spectrum
from whet.numerics.low_rank import factors_at_rank, output_pca, svd_of_weight


def product(weight: Tensor, inputs: Tensor, rank: int, damping: float = 1e-6) -> Tensor:
    u, v, shift = factors_at_rank(
        weight, whitened_spectrum(weight, second_moment(weight, inputs), damping=damping), rank
    )
    assert shift is None
    return u @ v


@pytest.mark.parametrize("shape", SHAPES)
def test_it_agrees_with_cholesky_whitening(shape: tuple[int, int]):
    """SVD-LLM as published: W S = U Σ Vᵀ with S of Cholesky, the leading part times S⁻¹."""
    weight, inputs = draw(*shape), calibration(shape[1])
    second = inputs @ inputs.T / inputs.shape[1]
    factor = torch.linalg.cholesky(second)
    u, s, vh = torch.linalg.svd(weight @ factor, full_matrices=False)
    for rank in range(1, min(shape) + 1):
        published = (u[:, :rank] * s[:rank]) @ vh[:rank] @ torch.linalg.inv(factor)
        found = product(weight, inputs, rank, damping=1e-13)
        torch.testing.assert_close(found @ factor, published @ factor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("damping", [1e-2, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_damping_adds_white_inputs(shape: tuple[int, int], damping: float):
    weight, inputs, rank = draw(*shape), calibration(shape[1]), 3
    moment = second_moment(weight, inputs)
    gram = weight @ weight.T
    on_input = shape[1] <= shape[0]
    white = damping * (moment.trace() / shape[1] if on_input else moment.trace() / gram.trace())
    full = inputs @ inputs.T / inputs.shape[1] + white * torch.eye(shape[1]).double()
    root = torch.linalg.cholesky(full)
    singular = torch.linalg.svdvals(weight @ root).square()
    lost = ((weight - product(weight, inputs, rank, damping)) @ root).square().sum() / singular.sum()
    assert float(lost) == pytest.approx(float(singular[rank:].sum() / singular.sum()), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_much_damping_gives_plain_svd_and_little_gives_drone(shape: tuple[int, int]):
    weight, inputs, rank = draw(*shape), calibration(shape[1]), 3
    plain = factors_at_rank(weight, svd_of_weight(weight), rank)
    torch.testing.assert_close(product(weight, inputs, rank, 1e9), plain.u @ plain.v, rtol=0, atol=1e-6)
    drone = factors_at_rank(weight, output_pca(weight, second_moment(weight, inputs)), rank)
    torch.testing.assert_close(product(weight, inputs, rank, 1e-12), drone.u @ drone.v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_rank_deficient_inputs_are_no_special_case(shape: tuple[int, int]):
    # Cholesky fails here
    weight, inputs = draw(*shape), calibration(shape[1], rank=3)
    for rank in range(3, min(shape) + 1):
        found = product(weight, inputs, rank)
        assert found.isfinite().all()
        assert float(((weight - found) @ inputs).norm() / (weight @ inputs).norm()) < 1e-3
    assert product(weight, torch.zeros_like(inputs), 2).isfinite().all()
