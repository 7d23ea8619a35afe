"""Random layers and inputs that the tests of several methods draw."""

import torch
from torch import Tensor

SHAPES = [(6, 9), (9, 6), (7, 7)]
TOKENS = 40


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def calibration(features: int, *, rank: int | None = None) -> Tensor:
    """(features, TOKENS) inputs, correlated and with a mean, as columns."""
    inputs = draw(features, rank or features, seed=1) @ (draw(rank or features, TOKENS, seed=2) + 0.5)
    return inputs * torch.linspace(0.2, 2.0, features, dtype=torch.float64)[:, None]


def narrow_rows(weight: Tensor, inputs: Tensor) -> Tensor:
    """What is seen on the narrower side: the inputs themselves if both are equal."""
    return inputs if weight.shape[1] <= weight.shape[0] else weight @ inputs


def second_moment(weight: Tensor, inputs: Tensor) -> Tensor:
    """On the narrower side."""
    rows = narrow_rows(weight, inputs)
    return rows @ rows.T / rows.shape[1]


def relative_tail(matrix: Tensor, rank: int) -> float:
    """The least share of a matrix' energy that a product of this rank can lose."""
    singular = torch.linalg.svdvals(matrix).square()
    return float(singular[rank:].sum() / singular.sum())
