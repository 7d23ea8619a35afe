import pytest
import torch
from torch import nn

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.calibration.sensitivity import quantization_sensitivity, simulated_int8
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture, dense_layers_in_blocks, dense_weight
from whet.models.inference import predict_logits
from whet.numerics.rounding import quantize_weight


@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_the_linear_layers_of_the_blocks(family: Family):
    model = tiny_model(family)
    assert set(dense_layers_in_blocks(model)) == set(Architecture.of(model).linears)
    factored = Recipe((Svd(keep=0.5),)).apply(model, Resources())
    names = dense_layers_in_blocks(factored)
    assert len(names) > len(dense_layers_in_blocks(model))
    assert all(isinstance(factored.get_submodule(name), nn.Linear) for name in names)


def test_a_model_without_blocks_has_none():
    assert dense_layers_in_blocks(nn.Linear(3, 3)) == ()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_simulated_int8_is_the_arithmetic_of_one_layer(family: Family):
    """Against 8-bit integers multiplied as integers."""
    model, batches = tiny_model(family), tiny_batches()
    name = dense_layers_in_blocks(model)[1]
    layer = model.get_submodule(name)
    before, seen = predict_logits(model, batches), {}
    with simulated_int8(model, [name]):
        # after the hook that rounds: sees what the layer multiplies
        handle = layer.register_forward_hook(lambda _m, inputs, out: seen.update(inputs=inputs[0], out=out))
        after = predict_logits(model, batches)
        handle.remove()
    assert 0 < abs(after - before).max() < 0.5
    assert (predict_logits(model, batches) == before).all()
    inputs, whole = seen["inputs"], quantize_weight(dense_weight(layer))
    scale = (inputs.max().clamp_min(0) - inputs.min().clamp_max(0)) / 255
    steps = inputs / scale
    assert (steps - steps.round()).abs().max() < 1e-3 and len(steps.round().unique()) <= 256
    wanted = (steps.round().long() @ whole.values.long().T).float() * scale * whole.scales[:, 0] + layer.bias
    torch.testing.assert_close(seen["out"], wanted, atol=1e-4, rtol=1e-4)


def test_the_layer_that_rounding_harms_most_comes_first():
    """A weight a thousand times the others of its output, on an input that is always zero, leaves these no steps."""
    model, batches = tiny_model("bert"), tiny_batches()
    names, worst = dense_layers_in_blocks(model), "bert.encoder.layer.1.attention.self.value"
    norm = model.bert.encoder.layer[0].output.LayerNorm
    with torch.no_grad():
        norm.weight[5] = norm.bias[5] = 0
        model.get_submodule(worst).weight[:, 5] = 3000
    found = quantization_sensitivity(model, names, batches)
    assert found[0] == worst and sorted(found) == sorted(names)
