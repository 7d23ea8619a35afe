from collections.abc import Iterator
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import NothingToCompress
from whet.methods.base import all_methods
from whet.methods.factorization._base import Factorization
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.attention import SelfAttention
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.low_rank import Spectrum, break_even, factors_at_rank, svd_of_weight

LOW_RANK = {name: method for name, method in all_methods().items() if issubclass(method, Factorization)}
BASICS = ("factorization.drone", "factorization.kfac", "factorization.svd")
every_method = pytest.mark.parametrize("method", LOW_RANK.values(), ids=LOW_RANK)


def resources() -> Resources:
    return Resources(calibration=tiny_batches())


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def matched(model: nn.Module, include: str = "*") -> int:
    """Weights of the matched linear layers."""
    return sum(dense_weight(model.get_submodule(name)).numel() for name in Architecture.of(model).matching(include))


def low_rank_layers(model: nn.Module) -> dict[str, LowRank]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}


def test_the_basic_methods_are_found():
    assert set(BASICS) <= set(LOW_RANK)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (9, 9)])
def test_factors_are_balanced_and_balancing_changes_nothing(shape: tuple[int, int], mean: bool):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    size = min(shape)
    p = torch.randn(size, size, generator=generator).double() * torch.logspace(-6, 6, size).double()
    q = torch.randn(size, size, generator=generator).double()
    centre = torch.randn(size, generator=generator).double() if mean else None
    for rank in range(1, size + 1):
        u, v, shift = factors_at_rank(weight, Spectrum(p, q, torch.zeros(size + 1), centre), rank)
        projection = p[:, :rank] @ q[:rank]
        expected = weight @ projection if shape[1] <= shape[0] else projection @ weight
        torch.testing.assert_close(u @ v, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
        torch.testing.assert_close(u.norm(dim=0), v.norm(dim=1))
        if centre is None:
            assert shift is None
            continue
        # on the input side the mean is that of x, on the output side that of Wx
        lost = weight @ centre - expected @ centre if shape[1] <= shape[0] else centre - projection @ centre
        torch.testing.assert_close(shift, lost, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_directions_without_weight_stay_finite():
    weight = torch.zeros(6, 4)
    weight[0, 0] = 1
    u, v, _ = factors_at_rank(weight, svd_of_weight(weight), 3)
    assert u.isfinite().all()
    assert v.isfinite().all()
    torch.testing.assert_close(u @ v, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_factors_have_the_dtype_of_the_weight(dtype: torch.dtype):
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    u, v, shift = factors_at_rank(weight, svd_of_weight(weight)._replace(mean=torch.ones(4).double()), 2)
    assert (u.dtype, v.dtype, shift.dtype) == (dtype, dtype, dtype)


@pytest.mark.parametrize("shape", [(768, 768), (3072, 768), (768, 3072), (5, 3)])
def test_below_break_even_two_factors_are_smaller(shape: tuple[int, int]):
    rank = break_even(torch.empty(shape))
    assert rank * sum(shape) <= shape[0] * shape[1] < (rank + 1) * sum(shape)


@pytest.mark.parametrize("keep", [0.2, 0.4, 0.55, 0.8, 0.95])
@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
@every_method
def test_the_model_never_exceeds_the_wanted_fraction(method: type[Factorization], allocation: str, keep: float):
    model = tiny_model("bert")
    compressed = method(keep=keep, allocation=allocation).apply(copy_sharing_parameters(model), resources())
    saved = parameters(model) - parameters(compressed)
    assert matched(model) - saved <= keep * matched(model)
    # and not much less: the ranks offered lie close
    assert matched(model) - saved >= (keep - 0.25) * matched(model)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("family", FAMILIES)
@every_method
def test_the_budget_holds_for_every_kind_of_model(method: type[Factorization], family: Family, keep: float):
    # Llama's layers have no biases: where a method adds some, they count too
    model = tiny_model(family)
    compressed = method(keep=keep).apply(copy_sharing_parameters(model), resources())
    saved = parameters(model) - parameters(compressed)
    assert matched(model) - saved <= keep * matched(model)


@pytest.mark.parametrize("keep", [0.3, 0.6])
@every_method
def test_uniform_gives_every_layer_its_own_share(method: type[Factorization], keep: float):
    model = tiny_model("bert")
    compressed = method(keep=keep, allocation="uniform").apply(copy_sharing_parameters(model), resources())
    for name in Architecture.of(model).linears:
        weight, layer = dense_weight(model.get_submodule(name)), compressed.get_submodule(name)
        assert isinstance(layer, LowRank)
        # the largest rank below break-even that fits
        assert layer.rank == int(keep * weight.numel()) // sum(weight.shape)


@every_method
def test_by_loss_never_expects_more_loss_than_uniform(method: type[Factorization]):
    model = tiny_model("bert")
    names = Architecture.of(model).linears
    spectra = dict(method(keep=0.5).spectra(model, names, resources()))
    expected = {}
    for allocation in ("uniform", "by_loss"):
        compressed = method(keep=0.5, allocation=allocation).apply(copy_sharing_parameters(model), resources())
        ranks = {name: layer.rank for name, layer in low_rank_layers(compressed).items()}
        expected[allocation] = sum(float(spectra[name].losses[rank]) for name, rank in ranks.items())
    assert expected["by_loss"] <= expected["uniform"]


@every_method
def test_a_larger_budget_predicts_less_loss(method: type[Factorization]):
    # the error of the logits need not fall with every step: errors of layers can cancel
    model = tiny_model("bert")
    spectra = dict(method(keep=0.5).spectra(model, Architecture.of(model).linears, resources()))
    expected = []
    for keep in (0.15, 0.35, 0.6, 0.9):
        compressed = method(keep=keep, allocation="uniform").apply(copy_sharing_parameters(model), resources())
        ranks = {name: layer.rank for name, layer in low_rank_layers(compressed).items()}
        expected.append(sum(float(spectra[name].losses[rank]) for name, rank in ranks.items()))
    assert expected == sorted(expected, reverse=True)
    assert expected[-1] < expected[0] / 2


@pytest.mark.parametrize("include", ["*attention*", "*.1.*", "*dense", "bert.encoder.layer.0.output.dense"])
@every_method
def test_include_leaves_the_other_layers_alone(method: type[Factorization], include: str):
    model = tiny_model("bert")
    compressed = method(keep=0.4, allocation="uniform", include=include).apply(
        copy_sharing_parameters(model), resources()
    )
    names = {name for name in Architecture.of(model).linears if fnmatchcase(name, include)}
    assert 0 < len(names) < len(Architecture.of(model).linears)
    assert set(low_rank_layers(compressed)) == names
    state = compressed.state_dict()
    for name, value in model.state_dict().items():
        if name.rpartition(".")[0] not in names:
            assert torch.equal(state[name], value)


@every_method
def test_the_budget_is_that_of_the_included_layers(method: type[Factorization]):
    model, include = tiny_model("bert"), "*.0.*"
    compressed = method(keep=0.4, include=include).apply(copy_sharing_parameters(model), resources())
    saved = parameters(model) - parameters(compressed)
    assert matched(model, include) - saved <= 0.4 * matched(model, include)


@every_method
def test_an_include_without_a_match_is_refused_with_the_existing_names(method: type[Factorization]):
    message = r"no linear layer matches '\*\.conv'; the linear layers here are bert\.encoder\.layer\.0\.attention"
    with pytest.raises(NothingToCompress, match=message):
        method(keep=0.4, include="*.conv").apply(tiny_model("bert"), resources())


@every_method
def test_a_model_that_is_already_factorised_is_refused(method: type[Factorization]):
    model = method(keep=0.2, allocation="uniform").apply(tiny_model("bert"), resources())
    assert len(low_rank_layers(model)) == 12
    message = r"must be dense, but all that '\*' matches are compressed already \(12 of kind low_rank\); apply a method"
    with pytest.raises(NothingToCompress, match=message):
        method(keep=0.2).apply(model, resources())
    with pytest.raises(NothingToCompress, match=r"compressed already \(6 of kind low_rank\)"):
        SelfAttention.all_of(model, "*")


@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
@every_method
def test_keep_1_leaves_the_model_unchanged(
    method: type[Factorization], allocation: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(method, "spectra", None)  # nor is anything computed
    model = tiny_model("bert")
    compressed = method(keep=1.0, allocation=allocation).apply(copy_sharing_parameters(model), resources())
    state = compressed.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
@every_method
def test_new_layers_replace_the_old_ones(method: type[Factorization], family: Family):
    model = tiny_model(family)
    compressed = method(keep=0.4, allocation="uniform").apply(copy_sharing_parameters(model), resources())
    for name in Architecture.of(model).linears:
        old, new = model.get_submodule(name), compressed.get_submodule(name)
        assert isinstance(new, LowRank)
        assert (new.out_features, new.in_features) == dense_weight(old).shape
        assert new.u.weight.dtype == dense_weight(old).dtype
        assert dense_bias(old) is None or new.u.bias is not None
    with torch.no_grad():
        assert compressed(**tiny_batches().batches[0]).logits.isfinite().all()


class Blocks(nn.Module):
    """Two blocks with layers so thin that no rank is smaller than the dense weight."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(*(nn.Linear(i, o) for o, i in shapes)) for _ in range(2))


class Alone(Factorization):
    """Plain SVD, for these tests."""

    needs = frozenset()

    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        for name in layers:
            yield name, svd_of_weight(dense_weight(model.get_submodule(name)))


@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
@pytest.mark.parametrize("shapes", [[(1, 32)], [(32, 1)], [(2, 2)], [(2, 3)], [(16, 16), (1, 16)]])
def test_no_layer_ever_grows(shapes: list[tuple[int, int]], allocation: str):
    # below break-even there is no rank for a router or gate with one output: it can only stay dense
    model = Blocks(shapes)
    before = {name: parameters(model.get_submodule(name)) for name in Architecture.of(model).linears}
    compressed = Alone(keep=0.5, allocation=allocation).apply(copy_sharing_parameters(model), Resources())
    for name, count in before.items():
        assert parameters(compressed.get_submodule(name)) <= count


def test_no_rank_from_break_even_on_is_offered():
    weight: Tensor = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    model = Blocks([(40, 40)])
    for block in model.blocks:
        block[0].weight.data.copy_(weight)
    for keep in np.linspace(0.05, 0.99, 12):
        compressed = Alone(keep=float(keep), allocation="by_loss").apply(copy_sharing_parameters(model), Resources())
        for layer in low_rank_layers(compressed).values():
            assert layer.rank < break_even(weight)
