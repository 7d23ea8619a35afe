import pytest
import torch
from torch import Tensor

from helpers import tiny_batches, tiny_model
from laws import calibration, draw
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.methods.pruning._base import keep_masks
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.pruning.sparsegpt import COLUMNS, SparseGpt, prune_and_compensate
from whet.methods.pruning.wanda import Wanda
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture, dense_weight
from whet.models.layers.masked import Masked
from whet.numerics.moments import Side

DAMPING = 1e-6


def lowest(share: float):
    return lambda scores: keep_masks({"": scores}, sparsity=share, pattern=None, scope="layer")[""]


def two_of_four(scores: Tensor) -> Tensor:
    return keep_masks({"": scores}, sparsity=None, pattern="2:4", scope="layer")[""]


def moment_of(inputs: Tensor) -> Tensor:
    return inputs @ inputs.T / inputs.shape[1]


def damped(moment: Tensor) -> Tensor:
    return moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)


def one_by_one(weight: Tensor, hessian: Tensor, group: int, choose) -> Tensor:
    """The method as it is written down: a new inverse for every column, and all weights to the right moved at once."""
    new = weight.clone()
    for j in range(new.shape[1]):
        if j % group == 0:
            # what removing column k would cost where the columns before it are done
            pivots = [torch.linalg.inv(hessian[k:, k:])[0, 0] for k in range(j, min(j + group, new.shape[1]))]
            stays = choose(new[:, j : j + group].square() / torch.stack(pivots))
        inverse = torch.linalg.inv(hessian[j:, j:])
        gone = ~stays[:, j % group]
        new[gone, j:] -= new[gone, j, None] * inverse[0] / inverse[0, 0]
        new[gone, j] = 0
    return new


@pytest.mark.parametrize(("group", "choose"), [(COLUMNS, lowest(0.5)), (COLUMNS, lowest(0.9)), (4, two_of_four)])
@pytest.mark.parametrize("features", [12, COLUMNS + 40])
def test_it_agrees_with_the_published_algorithm(features, group, choose):
    """Also where there are several blocks of columns, and the last is narrower."""
    weight, moment = draw(5, features), moment_of(calibration(features))
    new = prune_and_compensate(weight, moment, choose, group=group, damping=DAMPING)
    torch.testing.assert_close(new, one_by_one(weight, damped(moment), group, choose), rtol=1e-5, atol=1e-8)


def test_with_inputs_that_are_uncorrelated_it_is_magnitude_times_input_and_nothing_moves():
    weight, scale = draw(6, 24), torch.linspace(0.1, 3, 24, dtype=torch.float64)
    new = prune_and_compensate(weight, scale.square().diag(), lowest(0.6), group=COLUMNS, damping=1e-9)
    stays = lowest(0.6)(weight.abs() * scale)
    torch.testing.assert_close(new, weight * stays, rtol=1e-6, atol=0)
    assert torch.equal(new != 0, stays)


@pytest.mark.parametrize("column", [0, 4, 8])
def test_the_weights_to_the_right_compensate_optimally(column):
    """One weight of each output goes: those before it stay, and those after it are the least-squares optimum."""
    weight, moment = draw(3, 9), moment_of(calibration(9))

    def choose(scores: Tensor) -> Tensor:
        return torch.arange(9).expand_as(scores) != column

    new = prune_and_compensate(weight, moment, choose, group=9, damping=DAMPING)
    hessian, right = damped(moment), slice(column + 1, None)
    best = weight.clone()
    best[:, column] = 0
    # minimise (w − v) H (w − v)ᵀ over the v to the right
    best[:, right] += weight[:, [column]] @ hessian[[column], right] @ torch.linalg.inv(hessian[right, right])
    torch.testing.assert_close(new, best, rtol=1e-6, atol=1e-9)
    cost = ((weight - new) @ hessian @ (weight - new).T).diagonal()
    left = torch.linalg.inv(hessian[column:, column:])[0, 0]
    torch.testing.assert_close(cost, weight[:, column].square() / left)


def test_inputs_of_low_rank_are_no_special_case():
    """Also an input that is never there, and no inputs at all."""
    weight, inputs = draw(6, 20), calibration(20, rank=4)
    inputs[7] = 0
    for seen in (inputs, torch.zeros_like(inputs)):
        new = prune_and_compensate(weight, moment_of(seen), lowest(0.5), group=COLUMNS, damping=0.01)
        assert new.isfinite().all()
        assert int((new == 0).sum()) == 60
        assert ((weight - new) @ seen).norm() <= 0.02 * (weight @ seen).norm()


def pruned(method, **given):
    resources = Resources(calibration=tiny_batches())
    return Recipe((method(**given),)).apply(tiny_model("bert"), resources)


@pytest.mark.parametrize("given", [{"sparsity": 0.5}, {"sparsity": 0.8}, {"pattern": "2:4"}])
def test_outputs_on_calibration_text_are_nearer_than_without_compensation(given):
    """In the first layers, whose inputs are the same for all methods."""
    original = tiny_model("bert")
    names = [name for name in Architecture.of(original).linears if ".0.attention.self." in name]
    moments = collect_moments(original, tiny_batches(), names, sides=dict.fromkeys(names, Side.INPUT))
    models = [pruned(method, **given) for method in (SparseGpt, Wanda, Magnitude)]
    for name in names:
        weight, second = dense_weight(original.get_submodule(name)).double(), moments[name].second
        changes = [weight - model.get_submodule(name).linear.weight.detach().double() for model in models]
        errors = [float((change @ second @ change.T).trace()) for change in changes]
        assert errors[0] < min(errors[1:])


def test_layers_are_fitted_to_the_outputs_of_the_pruned_blocks_before_them():
    model = pruned(SparseGpt, sparsity=0.5)
    names = [name for name in Architecture.of(tiny_model("bert")).linears if ".1." in name]
    behind = pruned(SparseGpt, sparsity=0.5, include="*.0.*")
    moments = collect_moments(behind, tiny_batches(), names, sides=dict.fromkeys(names, Side.INPUT))
    for name in names:
        weight = dense_weight(behind.get_submodule(name))
        wanted = prune_and_compensate(weight, moments[name].second, lowest(0.5), group=COLUMNS, damping=0.01)
        assert torch.equal(model.get_submodule(name).linear.weight, wanted)


@pytest.mark.parametrize(("pattern", "few", "group"), [("2:4", 2, 4), ("1:8", 1, 8)])
def test_a_pattern_leaves_n_of_every_m_inputs(pattern, few, group):
    layers = [layer for layer in pruned(SparseGpt, pattern=pattern).modules() if isinstance(layer, Masked)]
    assert layers
    for layer in layers:
        left = (layer.linear.weight.unflatten(1, (-1, group)) != 0).sum(-1)
        assert bool((left <= few).all()) and float((left == few).float().mean()) > 0.9  # (one row was dead)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sparsity": 0.5, "scope": "global"}, r"scope must be layer, since .*, but got scope=global; leave scope out"),
        ({"sparsity": 0.5, "damping": 0.0}, r"0 < damping <= 1 must hold, but got damping=0.0"),
        ({}, "one of sparsity and pattern must be given"),
    ],
)
def test_bad_parameters_are_refused(given, message):
    with pytest.raises(InvalidParameter, match=message):
        SparseGpt(**given)


def test_groups_that_do_not_divide_a_layer_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(
        "whet.methods.pruning.sparsegpt.collect_moments", lambda *_, **__: pytest.fail("work had begun")
    )
    with pytest.raises(InvalidParameter, match=r"groups of 5 for .*query with 32; give"):
        pruned(SparseGpt, pattern="2:5")
