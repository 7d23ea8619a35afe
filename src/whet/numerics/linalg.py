"""Decompositions of symmetric positive semi-definite matrices, computed in the dtype of the matrix (float64 here)."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Eigen",
    "RootAndInverse",
    "diagonal_blocks",
    "eigh_descending",
    "root_and_inverse",
    "square_root",
    "tail_energy",
]


class Eigen(NamedTuple):
    """Eigenvalues and eigenvectors, largest first."""

    values: Tensor
    """(d,) non-negative, descending."""
    vectors: Tensor
    """(d, d), one eigenvector per column."""


class RootAndInverse(NamedTuple):
    """A square root R of a matrix M, such that R Rᵀ = M, and its inverse."""

    root: Tensor
    """(d, d) R."""
    inverse: Tensor
    """(d, d) R⁻¹."""


def eigh_descending(matrix: Tensor) -> Eigen:
    """Return the eigenvalues and eigenvectors of a symmetric (d, d) matrix, largest first; negative values become 0."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return Eigen(values.flip(0).clamp_min(0), vectors.flip(1))


def square_root(matrix: Tensor) -> Tensor:
    """Return (d, d) R with R Rᵀ = `matrix`.

    Args:
        matrix: (d, d) symmetric, positive semi-definite up to rounding.
    """
    # Cholesky costs a tenth of an eigendecomposition, which only singular matrices may need
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(matrix)
    return _symmetric_root(matrix, least=0.0).root if failed else lower


def root_and_inverse(matrix: Tensor, *, damping: float) -> RootAndInverse:
    """Return a square root of the damped matrix, and its inverse.

    Args:
        matrix: (d, d) symmetric, positive semi-definite up to rounding.
        damping: positive; this fraction of the mean eigenvalue is added to every eigenvalue, so that the inverse
            exists.
    """
    mean = float(matrix.diagonal().mean())
    # a zero matrix has no mean eigenvalue to scale by; any positive number keeps the inverse finite
    floor = damping * mean if mean > 0 else 1.0
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    lower, failed = torch.linalg.cholesky_ex(matrix + floor * eye)
    # no exact pivot is below the least eigenvalue; a smaller one shows that rounding made an eigenvalue negative
    if failed or float(lower.diagonal().min()) ** 2 < floor / 2:
        return _symmetric_root(matrix, least=floor)
    return RootAndInverse(lower, torch.linalg.solve_triangular(lower, eye, upper=False))


def _symmetric_root(matrix: Tensor, *, least: float) -> RootAndInverse:
    values, vectors = eigh_descending(matrix)
    scale = (values + least).sqrt()
    return RootAndInverse((vectors * scale) @ vectors.T, (vectors / scale) @ vectors.T)


def tail_energy(energies: Tensor, *, relative: bool) -> Tensor:
    """Return the energy that a truncation to rank k discards, (d + 1,), for k = 0 ... d.

    Args:
        energies: (d,) descending.
        relative: whether to return fractions of the total energy.
    """
    total = energies.sum()
    tails = torch.cat([energies.flip(0).cumsum(0).flip(0), torch.zeros(1).to(energies)])
    return tails / total if relative and total > 0 else tails


def diagonal_blocks(matrix: Tensor, width: int) -> Tensor:
    """Return the diagonal blocks of a (d, d) matrix, (d / width, width, width)."""
    count = len(matrix) // width
    return matrix.reshape(count, width, count, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
