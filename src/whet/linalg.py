"""Decompositions of symmetric positive semi-definite matrices, in float64."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Eigen", "Roots", "leading", "roots", "square_root", "tail"]


class Eigen(NamedTuple):
    """Eigenvalues and eigenvectors, largest first."""

    values: Tensor
    """(d,) not negative."""
    vectors: Tensor
    """(d, d) one per column."""


class Roots(NamedTuple):
    """The symmetric square root of a matrix and its inverse."""

    root: Tensor
    """(d, d)."""
    inverse: Tensor
    """(d, d)."""


def leading(matrix: Tensor) -> Eigen:
    """Return the eigenvalues and eigenvectors of a symmetric (d, d) matrix, largest first, negative ones as zero."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return Eigen(values.flip(0).clamp_min(0), vectors.flip(1))


def square_root(matrix: Tensor) -> Tensor:
    """Return the symmetric square root of a (d, d) matrix that is positive semi-definite up to rounding."""
    values, vectors = leading(matrix)
    return (vectors * values.sqrt()) @ vectors.T


def roots(matrix: Tensor, *, damping: float) -> Roots:
    """Return the square root of a symmetric (d, d) matrix and its inverse.

    Args:
        matrix: positive semi-definite up to rounding.
        damping: more than 0; this share of the mean eigenvalue is added to each, so that the inverse exists.
    """
    values, vectors = leading(matrix)
    # a matrix of zeros has no mean eigenvalue to scale by; any positive number keeps the inverse finite
    floor = damping * values.mean() if values.mean() > 0 else torch.ones((), dtype=values.dtype)
    scale = (values + floor).sqrt()
    return Roots((vectors * scale) @ vectors.T, (vectors / scale) @ vectors.T)


def tail(energies: Tensor, *, relative: bool) -> Tensor:
    """Return (d + 1,) sums of all but the first k of (d,) descending energies, for k = 0 ... d.

    With `relative`, as shares of their total.
    """
    total = energies.sum()
    left = torch.cat([energies.flip(0).cumsum(0).flip(0), torch.zeros(1).to(energies)])
    return left / total if relative and total > 0 else left
