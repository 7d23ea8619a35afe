"""Decompositions of symmetric positive semi-definite matrices, in float64."""

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
    """(d,) not negative."""
    vectors: Tensor
    """(d, d) one per column."""


class RootAndInverse(NamedTuple):
    """A square root R of a matrix, R Rᵀ, and its inverse."""

    root: Tensor
    """(d, d)."""
    inverse: Tensor
    """(d, d)."""


def eigh_descending(matrix: Tensor) -> Eigen:
    """Return the eigenvalues and eigenvectors of a symmetric (d, d) matrix, largest first, negative ones as zero."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return Eigen(values.flip(0).clamp_min(0), vectors.flip(1))


def square_root(matrix: Tensor) -> Tensor:
    """Return R with R Rᵀ = `matrix`, a symmetric (d, d) that is positive semi-definite up to rounding."""
    # Cholesky's costs a tenth of a decomposition into eigenvalues, which singular matrices may need
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(matrix)
    return _symmetric_root(matrix, least=0.0).root if failed else lower


def root_and_inverse(matrix: Tensor, *, damping: float) -> RootAndInverse:
    """Return a square root R of a symmetric (d, d) matrix, R Rᵀ, and its inverse.

    Args:
        matrix: positive semi-definite up to rounding.
        damping: more than 0; this share of the mean eigenvalue is added to each, so that the inverse exists.
    """
    mean = float(matrix.diagonal().mean())
    # a matrix of zeros has no mean eigenvalue to scale by; any positive number keeps the inverse finite
    floor = damping * mean if mean > 0 else 1.0
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    lower, failed = torch.linalg.cholesky_ex(matrix + floor * eye)
    # no pivot is below the least eigenvalue; one that is shows eigenvalues that rounding has made negative
    if failed or float(lower.diagonal().min()) ** 2 < floor / 2:
        return _symmetric_root(matrix, least=floor)
    return RootAndInverse(lower, torch.linalg.solve_triangular(lower, eye, upper=False))


def _symmetric_root(matrix: Tensor, *, least: float) -> RootAndInverse:
    values, vectors = eigh_descending(matrix)
    scale = (values + least).sqrt()
    return RootAndInverse((vectors * scale) @ vectors.T, (vectors / scale) @ vectors.T)


def tail_energy(energies: Tensor, *, relative: bool) -> Tensor:
    """Return (d + 1,) sums of all but the first k of (d,) descending energies, for k = 0 ... d.

    With `relative`, as shares of their total.
    """
    total = energies.sum()
    left = torch.cat([energies.flip(0).cumsum(0).flip(0), torch.zeros(1).to(energies)])
    return left / total if relative and total > 0 else left


def diagonal_blocks(matrix: Tensor, width: int) -> Tensor:
    """Return (d / width, width, width), the blocks on the diagonal of a (d, d) matrix."""
    count = len(matrix) // width
    return matrix.reshape(count, width, count, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
