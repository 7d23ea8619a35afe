import math

import pytest
import torch
from torch import Tensor, nn

from helpers import tiny_batches, tiny_model
from laws import draw
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.svd import Svd
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.pruning.sparse_training import RewiredLinear, SparseTraining, erk_counts, moved_fraction, rewired_mask
from whet.methods.recipe import Recipe
from whet.methods.recovery.distillation import Distillation
from whet.models import artifact
from whet.models.architecture import Architecture, dense_weight
from whet.models.layers.masked import Masked

STEP = SparseTraining(sparsity=0.7, epochs=2, interval=2, learning_rate=1e-2)


def everything(seed: int = 0) -> Resources:
    return Resources(calibration=tiny_batches(), train=tiny_batches(), teacher=tiny_model("bert"), seed=seed)


def trained(*steps, seed=0) -> nn.Module:
    return Recipe(steps or (STEP,)).apply(tiny_model("bert"), everything(seed))


def masks(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.linear.weight != 0 for name, layer in model.named_modules() if isinstance(layer, Masked)}


@pytest.fixture
def watched(monkeypatch):
    """Every change of every layer: the weights and masks before and after, the gradient, and the step's masks."""
    seen = []
    change = RewiredLinear.change

    def watch(layer, share, optimizer):
        before, weight = layer.active.clone(), layer.weight.detach().clone()
        change(layer, share, optimizer)
        state = {k: v.clone() for k, v in optimizer.state[layer.weight].items()}
        after = layer.weight.detach().clone()
        seen.append((share, before, weight, layer.masked.grad.clone(), layer.active.clone(), after, state))

    monkeypatch.setattr(RewiredLinear, "change", watch)
    return seen


def test_the_smallest_weights_are_dropped_and_the_largest_gradients_grow():
    weight = torch.tensor([[1.0, -0.1, 0.0, 0.0], [0.2, 3.0, 0.0, 0.0]])
    active = torch.tensor([[True, True, False, False], [True, True, False, True]])
    gradient = torch.tensor([[0.0, 0.3, 0.1, -9.0], [0.0, 7.0, 0.5, 0.2]])
    wanted = torch.tensor([[True, False, False, True], [True, True, True, False]])
    assert torch.equal(rewired_mask(weight, active, gradient, 2), wanted)
    # one that goes and is wanted most stays
    gradient[0, 1] = 10
    assert torch.equal(
        rewired_mask(weight, active, gradient, 2), torch.tensor([[True, True, False, True], [True, True, False, False]])
    )


@pytest.mark.parametrize("count", [0, 1, 7])
def test_as_many_weights_grow_as_are_dropped(count):
    weight, gradient = draw(6, 10), draw(6, 10, seed=1)
    active = draw(6, 10, seed=2) > 0.5
    new = rewired_mask(weight * active, active, gradient, count)
    assert new.sum() == active.sum()
    gone, come = active & ~new, new & ~active
    if count:
        assert gone.any()
        assert weight[gone].abs().max() <= weight[active & new].abs().max()
        assert gradient[come].abs().min() >= gradient[~new].abs().max()


def test_every_change_in_a_training_follows_the_rule(watched):
    trained()
    layers = len(Architecture.of(tiny_model("bert")).linears)
    assert len(watched) == 4 * layers, "12 steps, of which those below 9 count, every second one"
    for i, (share, before, weight, gradient, after, new, state) in enumerate(watched):
        step = 2 * (i // layers + 1)
        assert share == pytest.approx(0.15 * (1 + math.cos(math.pi * step / 9)))
        assert torch.equal(after, rewired_mask(weight, before, gradient, round(share * int(before.sum()))))
        assert before.sum() == after.sum() == round(0.3 * after.numel())
        stayed = before & after
        assert torch.equal(new, weight * stayed)
        assert all(not state[key][~stayed].any() for key in ("exp_avg", "exp_avg_sq"))
        assert all(state[key][stayed].any() for key in ("exp_avg", "exp_avg_sq"))
    assert any((before != after).any() for _, before, _, _, after, _, _ in watched)


def test_the_gradient_is_that_of_the_dense_weight():
    """Also of weights that are not there."""
    weight, inputs, active = draw(4, 6), draw(3, 6, seed=1), draw(4, 6, seed=2) > 0
    layer = RewiredLinear(weight, draw(4, seed=3), active)
    layer(inputs).square().sum().backward()
    dense = (weight * active).requires_grad_()
    nn.functional.linear(inputs, dense, draw(4, seed=3)).square().sum().backward()
    torch.testing.assert_close(layer.masked.grad, dense.grad)
    torch.testing.assert_close(layer.weight.grad, dense.grad * active)
    assert dense.grad[~active].abs().min() > 0


def test_the_number_of_weights_stays_and_so_do_their_positions_after_the_last_move(watched):
    found = masks(trained())
    last = [after for _, _, _, _, after, _, _ in watched[-len(found) :]]
    for mask, known in zip(found.values(), last, strict=True):
        assert torch.equal(mask, known)
        assert int(mask.sum()) == round(0.3 * mask.numel())
    start = masks(trained(Magnitude(sparsity=0.7)))
    assert all(not torch.equal(mask, start[name]) for name, mask in found.items())


def test_without_a_change_it_is_magnitude_and_recovery():
    settings = {"epochs": 1, "learning_rate": 1e-3}
    one = trained(SparseTraining(sparsity=0.7, interval=10**6, **settings))
    other = trained(Magnitude(sparsity=0.7), Distillation(**settings))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_pruned_layers_start_from_their_own_weights():
    """Whatever sparsity the others get; their zeros move as those of the others do."""
    first = Magnitude(sparsity=0.5, include="*.0.*")
    start = masks(trained(first))
    still, moved = (
        masks(trained(first, SparseTraining(sparsity=0.9, interval=interval, epochs=1))) for interval in (10**6, 2)
    )
    assert 0 < len(start) < len(still) == len(moved)
    for name, mask in still.items():
        if name in start:
            assert torch.equal(mask, start[name])
            assert not torch.equal(moved[name], mask) and moved[name].sum() == mask.sum()
        else:
            assert int(mask.sum()) == int(moved[name].sum()) == round(0.1 * mask.numel())


def test_factors_can_be_sparse_too(tmp_path, tokenizer):
    model = trained(Svd(keep=0.5, include="*.0.*"), STEP)
    names = [name for name in masks(model) if name.endswith((".u", ".v"))]
    assert names and len(names) < len(masks(model))
    records.save_model(model, tokenizer, tmp_path / "m", recipe=Recipe((STEP,)).to_list(), origin="tiny", seed=0)
    state = artifact.load_verified(tmp_path / "m").state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9, 1.0])
def test_erk_is_in_proportion_to_inputs_plus_outputs_and_exact_in_sum(density):
    shapes = {"square": (32, 32), "wide": (64, 32), "small": (4, 6), "tall": (8, 200)}
    counts = erk_counts(shapes, density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert abs(sum(counts.values()) - density * sum(sizes.values())) <= len(shapes)
    assert all(0 < counts[name] <= sizes[name] for name in shapes)
    part = [counts[name] / sum(shapes[name]) for name in shapes if counts[name] < sizes[name]]
    assert not part or max(part) - min(part) <= 0.05 * max(part) + 0.1
    assert all(
        counts[name] / sum(shapes[name]) <= min(part, default=math.inf) + 0.1
        for name in shapes
        if counts[name] == sizes[name]
    )


def test_erk_shares_out_in_a_model():
    model = trained(SparseTraining(sparsity=0.7, distribution="erk", epochs=1, interval=2))
    dense = {name: dense_weight(tiny_model("bert").get_submodule(name)) for name in masks(model)}
    assert {name: int(mask.sum()) for name, mask in masks(model).items()} == erk_counts(
        {name: weight.shape for name, weight in dense.items()}, 0.3
    )


def test_the_moved_fraction_falls_from_alpha_to_zero():
    assert moved_fraction(0, 0.3) == pytest.approx(0.3)
    assert moved_fraction(0.25, 0.3) == pytest.approx(0.15 * (1 + 0.5**0.5))
    assert moved_fraction(0.5, 0.3) == pytest.approx(0.15)
    assert moved_fraction(1, 0.3) == pytest.approx(0)


def test_results_follow_the_seed():
    one, same, other = (trained(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(same[name], value) for name, value in one.items())
    assert any(not torch.equal(other[name], value) for name, value in one.items())


def test_embeddings_are_saved_as_bits_and_values(tmp_path, tokenizer):
    model = trained()
    records.save_model(model, tokenizer, tmp_path / "m", recipe=Recipe((STEP,)).to_list(), origin="tiny", seed=0)
    loaded = artifact.load_verified(tmp_path / "m")
    assert not any(isinstance(layer, RewiredLinear) for layer in loaded.modules())
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sparsity": 1.0}, r"0 <= sparsity < 1 must hold, but got sparsity=1\.0"),
        ({"sparsity": 0.9, "interval": 0}, r"1 <= interval <= 1000000000 must hold, but got interval=0"),
        ({"sparsity": 0.9, "alpha": 0.0}, r"0 < alpha <= 1 must hold, but got alpha=0\.0"),
        ({"sparsity": 0.9, "alpha": 1.1}, r"0 < alpha <= 1 must hold"),
        ({"sparsity": 0.9, "until": 1.0}, r"0 < until < 1 must hold, but got until=1\.0"),
        ({"sparsity": 0.9, "distribution": "even"}, r"distribution must be one of uniform, erk"),
    ],
)
def test_bad_parameters_are_refused(given, message):
    with pytest.raises(InvalidParameter, match=message):
        SparseTraining(**given)


def test_a_wildcard_without_a_layer_is_refused():
    with pytest.raises(NothingToCompress, match=r"no linear layer matches 'nowhere\.\*'"):
        trained(SparseTraining(sparsity=0.9, include="nowhere.*"))
