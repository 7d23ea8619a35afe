import pytest
import torch
from torch import Tensor

from whet.numerics.linalg import diagonal_blocks, eigh_descending, root_and_inverse, square_root, tail_energy


def semi_definite(size: int, *, rank: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(size, rank or size, generator=generator, dtype=torch.float64)
    return factor @ factor.T


def test_leading_rebuilds_the_matrix_from_orthonormal_vectors_largest_first():
    matrix = semi_definite(7)
    values, vectors = eigh_descending(matrix)
    torch.testing.assert_close((vectors * values) @ vectors.T, matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-13)
    assert (values.diff() <= 0).all()


def test_leading_agrees_with_the_singular_values_of_a_root():
    factor = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(eigh_descending(factor @ factor.T).values, torch.linalg.svdvals(factor).square())


def test_leading_ignores_the_antisymmetric_part():
    matrix, noise = semi_definite(5), torch.randn(5, 5, generator=torch.Generator().manual_seed(2)).double()
    found = eigh_descending(matrix + noise - noise.T)
    torch.testing.assert_close(found.values, eigh_descending(matrix).values)


def test_leading_has_no_negative_values_where_rounding_makes_some():
    matrix = semi_definite(40, rank=3)
    assert torch.linalg.eigvalsh(matrix).min() < 0, "the example must be one where rounding shows"
    values = eigh_descending(matrix).values
    assert values.min() >= 0
    assert (values[3:] < 1e-12 * values[0]).all()


@pytest.mark.parametrize("damping", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("rank", [2, 6])
def test_roots_square_to_the_damped_matrix_and_undo_each_other(damping: float, rank: int):
    matrix = semi_definite(6, rank=rank)
    eye = torch.eye(6, dtype=torch.float64)
    root, inverse = root_and_inverse(matrix, damping=damping)
    # the mean eigenvalue is the mean of the diagonal
    torch.testing.assert_close(root @ root.T, matrix + damping * matrix.trace() / 6 * eye, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(root @ inverse, eye, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rank", [0, 2, 6])
def test_the_square_root_is_exact_for_singular_matrices_too(rank: int):
    matrix = semi_definite(6, rank=rank) if rank else torch.zeros(6, 6, dtype=torch.float64)
    root = square_root(matrix)
    torch.testing.assert_close(root @ root.T, matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("negative", [1e-9, 1e-7, 1e-5])
def test_eigenvalues_that_rounding_made_negative_do_no_harm(negative: float):
    """Products in float32 make some, as large as 1e-7 of the largest; near the damping they would leave no inverse."""
    values, vectors = eigh_descending(semi_definite(6))
    values[3:] = -negative * values[0]
    matrix = (vectors * values) @ vectors.T
    clamped = (vectors * values.clamp_min(0)) @ vectors.T
    torch.testing.assert_close(square_root(matrix) @ square_root(matrix).T, clamped, rtol=0, atol=1e-12)
    for damping in (1e-8, 1.001 * 6 * negative * float(values[0] / values.sum())):
        root, inverse = root_and_inverse(matrix, damping=damping)
        floor = damping * float(matrix.trace()) / 6
        torch.testing.assert_close(root @ inverse, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
        assert float(torch.linalg.matrix_norm(inverse, 2)) < 2 * floor**-0.5


def test_damping_follows_the_scale_of_the_matrix():
    matrix = semi_definite(5, rank=3)
    small, large = root_and_inverse(matrix, damping=1e-3), root_and_inverse(matrix * 1e8, damping=1e-3)
    torch.testing.assert_close(large.root, small.root * 1e4)
    torch.testing.assert_close(large.inverse, small.inverse / 1e4)


@pytest.mark.parametrize("damping", [1e-6, 1e-3])
def test_roots_of_a_matrix_of_zeros_are_finite_and_undo_each_other(damping: float):
    root, inverse = root_and_inverse(torch.zeros(4, 4, dtype=torch.float64), damping=damping)
    torch.testing.assert_close(root @ inverse, torch.eye(4, dtype=torch.float64))


def test_tail_energy_is_the_energy_after_each_rank():
    energies = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    assert tail_energy(energies, relative=False).tolist() == [10, 6, 3, 1, 0]
    torch.testing.assert_close(tail_energy(energies, relative=True), tail_energy(energies, relative=False) / 10)


def test_relative_tails_go_from_one_to_exactly_zero_and_never_rise():
    energies = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort().values.flip(0)
    left = tail_energy(energies, relative=True)
    assert float(left[0]) == pytest.approx(1)
    assert left[-1] == 0
    assert (left.diff() <= 0).all()
    torch.testing.assert_close(tail_energy(energies * 1e12, relative=True), left)


def test_small_energies_survive_beside_large_ones():
    # sums from the small end: total minus the leading ones would leave nothing of the last
    energies = torch.tensor([1e20, 1.0, 1e-10], dtype=torch.float64)
    assert tail_energy(energies, relative=False).tolist() == [1e20, 1.0 + 1e-10, 1e-10, 0]


@pytest.mark.parametrize("relative", [True, False])
def test_the_tail_of_no_energy_is_zero(relative: bool):
    assert tail_energy(torch.zeros(3, dtype=torch.float64), relative=relative).tolist() == [0] * 4


def test_blocks_on_the_diagonal_are_those_of_each_groups_own_features():
    rows = torch.randn(30, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blocks = diagonal_blocks(rows.T @ rows, 4)
    assert blocks.shape == (3, 4, 4)
    for i, own in enumerate(rows.split(4, dim=1)):
        torch.testing.assert_close(blocks[i], own.T @ own)
