import pytest
import torch
from torch import Tensor

from helpers import tiny_batches, tiny_model
from laws import SHAPES, calibration, draw, narrow_rows, second_moment
from whet.calibration.resources import Resources
from whet.methods.factorization.feature_mimicking import FeatureMimicking
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.low_rank import Factors, covariance_of, factors_at_rank, output_pca
from whet.numerics.moments import Moments


def mimicked(weight: Tensor, inputs: Tensor, rank: int) -> Factors:
    mean = narrow_rows(weight, inputs).mean(1)
    moments = Moments(mean, second_moment(weight, inputs), None)
    return factors_at_rank(weight, output_pca(weight, covariance_of(moments), mean), rank)


def lost(weight: Tensor, found: Factors, inputs: Tensor) -> float:
    """Mean squared error of the outputs, the bias included."""
    shift = 0 if found.shift is None else found.shift[:, None]
    return float(((weight - found.u @ found.v) @ inputs - shift).square().sum() / inputs.shape[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_rank_is_optimal_with_the_bias(shape: tuple[int, int]):
    weight, inputs = draw(*shape), calibration(shape[1])
    outputs = weight @ inputs
    singular = torch.linalg.svdvals(outputs - outputs.mean(1, keepdim=True)).square() / inputs.shape[1]
    for rank in range(1, min(shape) + 1):
        found = mimicked(weight, inputs, rank)
        assert lost(weight, found, inputs) == pytest.approx(float(singular[rank:].sum()), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_on_calibration_data_drone_is_never_better(shape: tuple[int, int]):
    weight, inputs = draw(*shape), calibration(shape[1])
    for rank in range(1, min(shape) + 1):
        drone = factors_at_rank(weight, output_pca(weight, second_moment(weight, inputs)), rank)
        assert lost(weight, mimicked(weight, inputs, rank), inputs) <= lost(weight, drone, inputs) + 1e-10


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_output_stays(shape: tuple[int, int]):
    weight, inputs = draw(*shape), calibration(shape[1])
    found = mimicked(weight, inputs, 2)
    mean = inputs.mean(1)
    torch.testing.assert_close(found.u @ (found.v @ mean) + found.shift, weight @ mean, rtol=0, atol=1e-9)


def test_in_a_model_layers_keep_their_mean_output():
    model, batches = tiny_model("bert"), tiny_batches()
    layer = "bert.encoder.layer.0.intermediate.dense"
    compressed = FeatureMimicking(keep=0.3, include=layer).apply(
        copy_sharing_parameters(model), Resources(calibration=batches)
    )
    assert isinstance(compressed.get_submodule(layer), LowRank)
    means = []
    for one in (model, compressed):
        rows: list[Tensor] = []
        handle = one.get_submodule(layer).register_forward_hook(lambda _m, _i, out, rows=rows: rows.append(out))
        with torch.no_grad():
            for batch in batches:
                one(**batch)
        handle.remove()
        real = [row[batch["attention_mask"].bool()] for row, batch in zip(rows, batches, strict=True)]
        means.append(torch.cat(real).mean(0))
    torch.testing.assert_close(means[0], means[1], rtol=0, atol=1e-5)
