import pytest
import torch

from helpers import sentences_of, tiny_batches, tiny_model
from laws import SHAPES, draw, relative_tail
from whet.calibration.importance import activation_magnitudes, clamp_importance
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter
from whet.methods.factorization.activation_svd import ActivationSvd
from whet.methods.factorization.svd import Svd
from whet.models.architecture import dense_weight
from whet.numerics.low_rank import factors_at_rank, svd_of_scaled_weight, svd_of_weight
from whet.tasks.data import Batches

LAYER = "bert.encoder.layer.1.output.dense"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_rank_is_optimal_in_the_scaled_norm(shape: tuple[int, int]):
    weight, scale = draw(*shape), draw(shape[1], seed=1).abs() + 0.01
    spectrum = svd_of_scaled_weight(weight, scale)
    for rank in range(1, min(shape) + 1):
        u, v, shift = factors_at_rank(weight, spectrum, rank)
        lost = ((weight - u @ v) * scale).square().sum() / (weight * scale).square().sum()
        optimum = relative_tail(weight * scale, rank)
        assert shift is None
        assert float(lost) == pytest.approx(optimum, rel=1e-8, abs=1e-12)
        assert float(spectrum.losses[rank]) == pytest.approx(optimum, rel=1e-8, abs=1e-12)


def test_magnitudes_are_those_of_the_real_tokens():
    model, batches = tiny_model("bert"), tiny_batches()
    alone = []  # every sentence without any padding
    layer = model.get_submodule(LAYER)
    handle = layer.register_forward_pre_hook(lambda _, inputs: alone.append(inputs[0].reshape(-1, 64)))
    with torch.no_grad():
        for sentence in (one for batch in sentences_of(batches) for one in batch):
            model(input_ids=torch.tensor(sentence)[None])
    handle.remove()
    expected = torch.cat(alone).abs().double().mean(0)
    found = activation_magnitudes(model, batches, (LAYER,))[LAYER]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_without_a_power_it_is_plain_svd():
    model, resources = tiny_model("bert"), Resources(calibration=tiny_batches())
    plain = dict(Svd(keep=0.5).spectra(model, (LAYER,), resources))[LAYER]
    found = dict(ActivationSvd(keep=0.5, alpha=0.0).spectra(model, (LAYER,), resources))[LAYER]
    torch.testing.assert_close(found.losses, plain.losses)
    other = dict(ActivationSvd(keep=0.5, alpha=0.5).spectra(model, (LAYER,), resources))[LAYER]
    assert not torch.allclose(other.losses, plain.losses)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_that_power_of_the_magnitudes_scales_the_weight(alpha: float):
    model, resources = tiny_model("bert"), Resources(calibration=tiny_batches())
    scale = clamp_importance(activation_magnitudes(model, tiny_batches(), (LAYER,))[LAYER]) ** alpha
    expected = svd_of_scaled_weight(dense_weight(model.get_submodule(LAYER)), scale)
    found = dict(ActivationSvd(keep=0.5, alpha=alpha).spectra(model, (LAYER,), resources))[LAYER]
    torch.testing.assert_close(found.losses, expected.losses)
    assert scale.max() / scale.min() > 1.1  # features do differ here


def test_a_feature_that_never_occurs_does_no_harm():
    weight, seen = draw(6, 9), torch.ones(9).double()
    seen[4] = 0
    u, v, _ = factors_at_rank(weight, svd_of_scaled_weight(weight, clamp_importance(seen)), 5)
    assert (u @ v).isfinite().all()
    # the others are fitted as if it was not there
    rest = [i for i in range(9) if i != 4]
    alone = factors_at_rank(weight[:, rest], svd_of_weight(weight[:, rest]), 5)
    torch.testing.assert_close((u @ v)[:, rest], alone.u @ alone.v, rtol=0, atol=1e-4)
    assert torch.equal(clamp_importance(torch.zeros(3)), torch.ones(3))


def test_only_the_ratios_of_magnitudes_count():
    model, batches = tiny_model("bert"), tiny_batches()
    twice = Batches([*batches.batches, *batches.batches], batches.labels.repeat(2))
    spectra = [
        dict(ActivationSvd(keep=0.5).spectra(model, (LAYER,), Resources(calibration=one)))[LAYER]
        for one in (batches, twice)
    ]
    weight = dense_weight(model.get_submodule(LAYER))
    first, second = (factors_at_rank(weight, spectrum, 5) for spectrum in spectra)
    torch.testing.assert_close(first.u @ first.v, second.u @ second.v, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_powers_outside_their_range_are_refused(alpha: float):
    with pytest.raises(InvalidParameter, match=f"0 <= alpha <= 1 must hold, but got alpha={alpha}"):
        ActivationSvd(keep=0.5, alpha=alpha)
