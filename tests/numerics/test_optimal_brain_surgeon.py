import pytest
import torch
from torch import Tensor

from laws import draw
from whet.numerics.optimal_brain_surgeon import RemovalOrder, add_damping, compensate_for_removed, removal_order


class Layer:
    """A random layer that reads correlated inputs, and the gradients at its outputs."""

    def __init__(self, inputs: int = 12, outputs: int = 5, *, seed: int = 0) -> None:
        self.x = draw(80, inputs, seed=seed) @ draw(inputs, inputs, seed=seed + 1) + draw(inputs, seed=seed + 2)
        self.weight = draw(outputs, inputs, seed=seed + 3)
        g = draw(30, outputs, seed=seed + 4)
        self.gradient = g.T @ g / 30
        self.mean = self.x.mean(0)
        self.covariance = torch.cov(self.x.T, correction=0)

    @property
    def weighed(self) -> Tensor:
        return self.weight.T @ self.gradient @ self.weight

    def loss(self, kept: Tensor) -> float:
        """½ tr(G ΔW C ΔWᵀ) once the inputs that stay are fitted to the whole output, by plain least squares."""
        x = self.x - self.mean
        y = x @ self.weight.T
        found = torch.linalg.lstsq(x[:, kept], y).solution if len(kept) else y.new_zeros(0, y.shape[1])
        error = y - x[:, kept] @ found
        return float((error @ self.gradient * error).sum() / len(x) / 2)


def greedy(layer: Layer, width: int = 1) -> RemovalOrder:
    """The same order, by fitting anew for every group that might go next."""
    groups = layer.weight.shape[1] // width
    left, gone, losses = list(range(groups)), [], [0.0]
    while left:
        after = {i: layer.loss(features([one for one in left if one != i], width)) for i in left}
        gone.append(min(left, key=after.__getitem__))
        left.remove(gone[-1])
        losses.append(after[gone[-1]])
    return RemovalOrder(torch.tensor(gone), torch.tensor(losses[::-1], dtype=torch.float64))


def features(groups: list[int], width: int) -> Tensor:
    return torch.tensor([width * i + j for i in groups for j in range(width)], dtype=torch.long)


@pytest.mark.parametrize("block", [1, 3, 5, 12, 100])
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_each_step_is_the_cheapest_by_least_squares_however_steps_are_blocked(seed: int, block: int, monkeypatch):
    monkeypatch.setattr("whet.numerics.optimal_brain_surgeon.BLOCK", block)
    layer = Layer(seed=seed)
    found, wanted = removal_order(layer.covariance, layer.weighed), greedy(layer)
    assert found.order.tolist() == wanted.order.tolist()
    torch.testing.assert_close(found.losses, wanted.losses, rtol=1e-8, atol=1e-10 * float(wanted.losses[0]))


@pytest.mark.parametrize("width", [2, 3, 6])
def test_each_removed_group_is_the_cheapest_by_least_squares(width: int):
    layer = Layer()
    found, wanted = removal_order(layer.covariance, layer.weighed, width=width), greedy(layer, width)
    assert found.order.tolist() == wanted.order.tolist()
    torch.testing.assert_close(found.losses, wanted.losses, rtol=1e-8, atol=1e-10 * float(wanted.losses[0]))


def test_blocks_change_nothing_in_a_wide_layer(monkeypatch):
    layer = Layer(300, 40)
    layer.covariance = add_damping(layer.covariance, 1e-3)  # fewer rows than inputs
    found = removal_order(layer.covariance, layer.weighed)
    monkeypatch.setattr("whet.numerics.optimal_brain_surgeon.BLOCK", 1)
    single = removal_order(layer.covariance, layer.weighed)
    assert torch.equal(found.order, single.order)
    torch.testing.assert_close(found.losses, single.losses, rtol=1e-9, atol=0)


def test_losses_are_those_of_the_fit_with_the_kept_inputs():
    layer = Layer(40, 7)
    covariance = add_damping(layer.covariance, 1e-2)
    found = removal_order(covariance, layer.weighed)
    assert found.losses[-1] == 0 and bool((found.losses.diff() <= 0).all())
    for count in (1, 5, 17, 39):
        kept = found.kept(count)
        delta = layer.weight.clone()
        delta[:, kept] -= compensate_for_removed(layer.weight, covariance, layer.mean, kept).weight
        loss = (layer.gradient @ delta @ covariance @ delta.T).trace() / 2
        torch.testing.assert_close(found.losses[count], loss, rtol=1e-9, atol=0)
    whole = (layer.gradient @ layer.weight @ covariance @ layer.weight.T).trace() / 2
    torch.testing.assert_close(found.losses[0], whole)


def test_kept_inputs_are_fitted_by_least_squares():
    layer = Layer()
    kept = torch.tensor([0, 2, 3, 7, 11])
    weight, shift = compensate_for_removed(layer.weight, layer.covariance, layer.mean, kept)
    with_constant = torch.cat([layer.x[:, kept], torch.ones(len(layer.x), 1).double()], 1)
    wanted = torch.linalg.lstsq(with_constant, layer.x @ layer.weight.T).solution.T
    torch.testing.assert_close(weight, wanted[:, :-1], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(shift, wanted[:, -1], rtol=1e-8, atol=1e-9)


def test_combinations_of_inputs_are_read_by_least_squares_too():
    layer = Layer()
    across = torch.randn(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, shift = compensate_for_removed(layer.weight, layer.covariance, layer.mean, across)
    with_constant = torch.cat([layer.x @ across.T, torch.ones(len(layer.x), 1).double()], 1)
    wanted = torch.linalg.lstsq(with_constant, layer.x @ layer.weight.T).solution.T
    torch.testing.assert_close(weight, wanted[:, :-1], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(shift, wanted[:, -1], rtol=1e-8, atol=1e-9)


def test_redundant_inputs_are_removed_first_at_no_cost():
    layer = Layer()
    layer.x[:, 4] = 2 * layer.x[:, 1] - layer.x[:, 9] + 3
    layer.mean, layer.covariance = layer.x.mean(0), add_damping(torch.cov(layer.x.T, correction=0), 1e-10)
    found = removal_order(layer.covariance, layer.weighed)
    assert int(found.order[0]) in (1, 4, 9)
    assert float(found.losses[-2]) < 1e-8 * float(found.losses[0]) < float(found.losses[-3])
    kept = found.kept(11)
    weight, shift = compensate_for_removed(layer.weight, layer.covariance, layer.mean, kept)
    torch.testing.assert_close(layer.x[:, kept] @ weight.T + shift, layer.x @ layer.weight.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_damping_scales_with_the_inputs(scale: float):
    covariance = Layer().covariance
    torch.testing.assert_close(add_damping(scale * covariance, 1e-3), scale * add_damping(covariance, 1e-3))


def test_inputs_that_never_move_go_at_no_cost():
    still = removal_order(add_damping(torch.zeros(6, 6).double(), 1e-3), torch.zeros(6, 6).double())
    assert sorted(still.order.tolist()) == list(range(6)) and not still.losses.any()
