import pytest
import torch

from helpers import noise_of, tiny_batches, tiny_model
from whet.calibration.importance import clamp_importance, fisher_importance
from whet.calibration.resources import Resources
from whet.methods.factorization.fisher_svd import FisherSvd
from whet.models.architecture import dense_weight
from whet.numerics.low_rank import svd_of_scaled_weight

LAYERS = ("bert.encoder.layer.0.attention.self.value", "bert.encoder.layer.1.intermediate.dense")


@pytest.mark.parametrize("layer", LAYERS)
def test_sensitivities_are_those_of_single_examples(layer: str):
    """Against one backward pass an example, through the weight itself."""
    model, batches, seed = tiny_model("bert"), tiny_batches(count=3), 5
    weight = model.get_submodule(layer).weight
    expected, examples = torch.zeros(weight.shape[1]).double(), 0
    for batch in batches:
        logits = model(**batch).logits
        noise = noise_of(logits, seed, examples)
        for i in range(len(logits)):
            (gradient,) = torch.autograd.grad(logits[i] @ noise[i], weight, retain_graph=True)
            expected += gradient.double().square().sum(0)
            examples += 1
    found = fisher_importance(model, batches, LAYERS, seed=seed)[layer]
    torch.testing.assert_close(found, expected / examples, rtol=1e-3, atol=1e-12)


def test_weights_stay_unchanged():
    model = tiny_model("bert")
    frozen = model.get_submodule(LAYERS[0]).weight.requires_grad_(False)
    fisher_importance(model, tiny_batches(), LAYERS, seed=0)
    assert not frozen.requires_grad
    assert model.get_submodule(LAYERS[1]).weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_root_of_the_sensitivities_scales_the_weight():
    model, resources = tiny_model("bert"), Resources(calibration=tiny_batches(), seed=3)
    for layer in LAYERS:
        scale = clamp_importance(fisher_importance(model, tiny_batches(), LAYERS, seed=3)[layer]).sqrt()
        expected = svd_of_scaled_weight(dense_weight(model.get_submodule(layer)), scale)
        found = dict(FisherSvd(keep=0.5).spectra(model, LAYERS, resources))[layer]
        torch.testing.assert_close(found.losses, expected.losses)
        assert scale.max() / scale.min() > 1.1  # features do differ here
