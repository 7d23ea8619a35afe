import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from helpers import tiny_batches, tiny_model
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.evaluation import records
from whet.methods.pruning._base import keep_masks
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.pruning.random import Random
from whet.methods.pruning.wanda import Wanda
from whet.methods.recipe import Recipe
from whet.methods.recovery.distillation import Distillation
from whet.models import artifact
from whet.models.architecture import Architecture, dense_weight
from whet.models.layers.masked import Masked, PackedSparse
from whet.numerics.moments import Side

METHODS = (Magnitude, Random, Wanda)


def everything(family: str = "bert") -> Resources:
    return Resources(calibration=tiny_batches(), train=tiny_batches(), teacher=tiny_model(family))


def pruned(method, family="bert", **given):
    return Recipe((method(**given),)).apply(tiny_model(family), everything(family))


def masked(model: nn.Module) -> dict[str, Masked]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Masked)}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_every_layer_loses_its_share_and_the_rest_stays(method, family):
    original, model = tiny_model(family), pruned(method, family, sparsity=0.25)
    names = Architecture.of(original).linears
    assert set(masked(model)) == set(names)
    for name, layer in masked(model).items():
        weight, known = layer.linear.weight, dense_weight(original.get_submodule(name))
        there = weight != 0
        assert torch.equal(weight[there], known[there])
        dead = int((known == 0).sum())
        assert abs(int((~there).sum()) - 0.25 * weight.numel()) <= dead
    own = {name for name, _ in model.named_parameters()}
    for name, value in original.named_parameters():
        if name in own:  # norms, embeddings and the head
            assert torch.equal(model.get_parameter(name), value)


def test_magnitude_prunes_the_smallest_of_a_layer_or_of_all():
    original = tiny_model("bert")
    weights = {name: dense_weight(original.get_submodule(name)) for name in Architecture.of(original).linears}
    for name, layer in masked(pruned(Magnitude, sparsity=0.4)).items():
        gone = layer.linear.weight == 0
        assert weights[name][gone].abs().max() <= weights[name][~gone].abs().min()
    together = masked(pruned(Magnitude, sparsity=0.4, scope="global"))
    gone = torch.cat([weights[name][layer.linear.weight == 0].abs() for name, layer in together.items()])
    left = torch.cat([weights[name][layer.linear.weight != 0].abs() for name, layer in together.items()])
    assert gone.max() <= left.min()
    assert len(gone) == round(0.4 * (len(gone) + len(left)))
    shares = {round(float((layer.linear.weight == 0).float().mean()), 3) for layer in together.values()}
    assert len(shares) > 1, "layers differ"


def test_wanda_prunes_the_smallest_contributions_of_each_output():
    original = tiny_model("bert")
    names = Architecture.of(original).linears
    moments = collect_moments(original, tiny_batches(), names, sides=dict.fromkeys(names, Side.INPUT))
    for name, layer in masked(pruned(Wanda, sparsity=0.5)).items():
        weight = dense_weight(original.get_submodule(name))
        adds = weight.abs() * moments[name].second.diagonal().sqrt().float()
        gone = layer.linear.weight == 0
        for row, out in zip(adds, gone, strict=True):
            if row.max() > 0:
                assert out.sum() == weight.shape[1] // 2
                assert row[out].max() <= row[~out].min()


def test_random_follows_the_seed():
    one, same, other = (
        Recipe((Random(sparsity=0.5),)).apply(tiny_model("bert"), Resources(seed=seed)) for seed in (1, 1, 2)
    )
    first, second, third = (next(iter(masked(model).values())).linear.weight for model in (one, same, other))
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize(("pattern", "few", "group"), [("2:4", 2, 4), ("1:8", 1, 8)])
def test_a_pattern_leaves_n_of_every_m_inputs(pattern, few, group):
    scores = torch.rand(5, 16, generator=torch.Generator().manual_seed(0))
    mask = keep_masks({"x": scores}, sparsity=None, pattern=pattern, scope="layer")["x"]
    groups, best = mask.unflatten(1, (-1, group)), scores.unflatten(1, (-1, group))
    assert bool((groups.sum(-1) == few).all())
    assert bool((best.masked_fill(~groups, 2).amin(-1) >= best.masked_fill(groups, -1).amax(-1)).all())
    model = pruned(Magnitude, pattern=pattern)
    assert all(
        bool(((layer.linear.weight.unflatten(1, (-1, group)) != 0).sum(-1) <= few).all())
        for layer in masked(model).values()
    )


def test_zeros_stay_zeros_in_training():
    steps = (Wanda(sparsity=0.6), Distillation(epochs=3, learning_rate=1e-2))
    before, after = pruned(Wanda, sparsity=0.6), Recipe(steps).apply(tiny_model("bert"), everything())
    for name, layer in masked(after).items():
        weight, known = layer.linear.weight, masked(before)[name].linear.weight
        assert torch.equal(weight == 0, known == 0)
        assert not torch.equal(weight, known)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_stored_layers_hold_bits_and_values(family, tmp_path, tokenizer):
    model = pruned(Magnitude, family, sparsity=0.9)
    recipe = Recipe((Magnitude(sparsity=0.9),))
    records.save_model(model, tokenizer, tmp_path / "m", recipe=recipe.to_list(), origin="tiny", seed=0)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    for name, layer in masked(model).items():
        weight = layer.linear.weight
        assert tensors[f"{name}.bits"].numel() == -(-weight.numel() // 8)
        assert tensors[f"{name}.values"].numel() == int((weight != 0).sum())
        assert f"{name}.linear.weight" not in tensors
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    assert set(masked(loaded)) == set(masked(model))
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert masked(model), "the model that was saved is as it was"


def test_the_dense_form_is_kept_where_it_is_smaller(tmp_path, tokenizer):
    model = pruned(Magnitude, sparsity=0.02)
    records.save_model(model, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    assert not any(name.endswith(".bits") for name in load_file(tmp_path / "m" / "model.safetensors"))
    assert masked(artifact.load_verified(tmp_path / "m"))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (4, 8), (1, 1)])
def test_packing_is_exact(shape, bias):
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=random) * (torch.rand(shape, generator=random) > 0.5)
    layer = Masked.of(weight, torch.randn(shape[0], generator=random) if bias else None)
    again = PackedSparse.of(layer.linear.weight.detach(), layer.linear.bias).running()
    assert torch.equal(again.linear.weight, weight)
    assert (again.linear.bias is None) == (not bias)
    if bias:
        assert torch.equal(again.linear.bias, layer.linear.bias)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of sparsity and pattern must be given, but got sparsity=None and pattern=None"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "one of sparsity and pattern must be given"),
        ({"sparsity": 1.0}, r"0 <= sparsity < 1 must hold, but got sparsity=1.0"),
        ({"sparsity": -0.1}, r"0 <= sparsity < 1 must hold"),
        ({"pattern": "4:2"}, r"pattern must be N:M with 0 < N < M, but got pattern=4:2; give one such as 2:4"),
        ({"pattern": "half"}, r"pattern must be N:M"),
        ({"pattern": "2:4", "scope": "global"}, r"scope must be layer with a pattern"),
    ],
)
def test_bad_parameters_are_refused(given, message):
    with pytest.raises(InvalidParameter, match=message):
        Magnitude(**given)


def test_groups_that_do_not_divide_a_layer_are_refused():
    with pytest.raises(
        InvalidParameter, match=r"must divide a layer's inputs, but got groups of 5 for .* with 32; give"
    ):
        pruned(Magnitude, pattern="2:5")


def test_corrections_beside_a_pruned_weight_are_trained():
    layer = Masked.of(torch.eye(4), None)
    layer.linear.weight.requires_grad_(False)
    seen = []
    layer.linear.register_forward_hook(lambda *_: seen.append(True))
    layer(torch.ones(2, 4))
    assert seen
