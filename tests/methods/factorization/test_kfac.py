import copy

import pytest
import torch
from torch import Tensor

from helpers import Family, tiny_batches, tiny_model
from laws import SHAPES, draw
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, MissingResource
from whet.methods.factorization.kfac import Kfac
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.linalg import RootAndInverse, root_and_inverse
from whet.numerics.low_rank import DAMPING as ACTIVATION_DAMPING
from whet.numerics.low_rank import Factors, Spectrum, covariance_of, factors_at_rank, svd_in_metric
from whet.numerics.moments import Moments, Side, narrower_side

DAMPING = 1e-3


class Layer:
    """A random layer with everything that the small-side forms do without: full-size moments of both sides."""

    def __init__(self, shape: tuple[int, int], *, tokens: int = 60, gradients: int = 50) -> None:
        out_features, in_features = shape
        self.weight = draw(*shape)
        self.bias = draw(out_features, seed=1)
        self.x = draw(tokens, in_features, seed=2) @ draw(in_features, in_features, seed=3) + draw(in_features, seed=4)
        self.g = draw(gradients, out_features, seed=5) @ draw(out_features, out_features, seed=6)
        self.mean = self.x.mean(0)
        self.c = (self.x - self.mean).T @ (self.x - self.mean) / tokens
        self.gradient = self.g.T @ self.g / gradients
        self.on_input = in_features <= out_features
        # the damped moment is the metric in which the form on that side is optimal
        eye_in, eye_out = torch.eye(in_features).double(), torch.eye(out_features).double()
        if self.on_input:
            self.c_damped = self.c + ACTIVATION_DAMPING * self.c.trace() / in_features * eye_in
            self.gradient_damped = self.gradient
        else:
            self.c_damped = self.c
            self.gradient_damped = self.gradient + DAMPING * self.gradient.trace() / out_features * eye_out

    def spectrum(self) -> Spectrum:
        """From the moments of the narrower side alone."""
        if self.on_input:
            h = self.g @ self.weight
            return svd_in_metric(
                self.weight, root_and_inverse(self.c, damping=ACTIVATION_DAMPING), h.T @ h / len(h), self.mean
            )
        z = self.x @ self.weight.T
        moments = Moments(z.mean(0), z.T @ z / len(z), None)
        return svd_in_metric(
            self.weight, root_and_inverse(self.gradient, damping=DAMPING), covariance_of(moments), moments.mean
        )

    def factors(self, rank: int) -> Factors:
        return factors_at_rank(self.weight, self.spectrum(), rank)

    def direct(self, rank: int) -> Tensor:
        """G^{-½} [G^½ W C^½]_k C^{-½} with d × d roots of both sides."""
        left, right = full_roots(self.gradient_damped), full_roots(self.c_damped)
        u, s, vh = torch.linalg.svd(left.root @ self.weight @ right.root, full_matrices=False)
        return left.inverse @ (u[:, :rank] * s[:rank]) @ vh[:rank] @ right.inverse

    def loss(self, other: Tensor) -> Tensor:
        """½ tr(G ΔW C ΔWᵀ)."""
        delta = self.weight - other
        return (self.gradient_damped @ delta @ self.c_damped @ delta.T).trace() / 2


def full_roots(matrix: Tensor) -> RootAndInverse:
    values, vectors = torch.linalg.eigh(matrix)
    return RootAndInverse((vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_small_side_agrees_with_the_full_form(shape: tuple[int, int]):
    layer = Layer(shape)
    for rank in range(1, min(shape) + 1):
        u, v, _ = layer.factors(rank)
        assert float((u @ v - layer.direct(rank)).norm() / layer.weight.norm()) < 1e-8


@pytest.mark.parametrize("shape", SHAPES)
def test_losses_are_half_the_trace_and_half_the_squared_singular_values(shape: tuple[int, int]):
    layer = Layer(shape)
    losses = layer.spectrum().losses
    left, right = full_roots(layer.gradient_damped), full_roots(layer.c_damped)
    singular = torch.linalg.svdvals(left.root @ layer.weight @ right.root)
    assert len(losses) == min(shape) + 1
    torch.testing.assert_close(losses[0], layer.loss(torch.zeros_like(layer.weight)))
    for rank in range(1, min(shape) + 1):
        u, v, _ = layer.factors(rank)
        torch.testing.assert_close(layer.loss(u @ v), losses[rank], rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(losses[rank], singular[rank:].square().sum() / 2, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("shape", [(9, 6), (7, 7)])
def test_with_fewer_gradients_than_outputs_the_small_side_is_still_optimal(shape: tuple[int, int]):
    # G is then singular and the full form undefined; many products are optimal, so the loss is what must agree
    layer = Layer(shape, gradients=4)
    half = torch.linalg.cholesky(layer.c_damped)
    singular = torch.linalg.svdvals(layer.g @ layer.weight @ half / 2)
    for rank in range(1, min(shape) + 1):
        u, v, _ = layer.factors(rank)
        torch.testing.assert_close(layer.loss(u @ v), singular[rank:].square().sum() / 2, rtol=1e-7, atol=1e-8)


def test_with_fewer_tokens_than_inputs_the_small_side_is_still_optimal():
    layer = Layer((6, 9), tokens=6)
    root = full_roots(layer.gradient_damped).root
    singular = torch.linalg.svdvals(root @ layer.weight @ (layer.x - layer.mean).T / 6**0.5)
    for rank in range(1, 7):
        u, v, _ = layer.factors(rank)
        torch.testing.assert_close(layer.loss(u @ v), singular[rank:].square().sum() / 2, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_the_same_rank_is_better(shape: tuple[int, int]):
    layer, rank = Layer(shape), 3
    u, v, _ = layer.factors(rank)
    least = layer.loss(u @ v)
    for seed in range(30):
        du, dv = draw(*u.shape, seed=seed + 10), draw(*v.shape, seed=seed + 100)
        for size in (1e-3, 1e-1, 1.0):
            assert layer.loss((u + size * du) @ (v + size * dv)) > least
        # the best left factor for random right factors: regression of W onto them in the metric C
        best = layer.weight @ layer.c_damped @ dv.T @ torch.linalg.inv(dv @ layer.c_damped @ dv.T)
        assert layer.loss(best @ dv) > least


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_is_exact_and_moves_no_bias(shape: tuple[int, int]):
    layer = Layer(shape)
    u, v, shift = layer.factors(min(shape))
    torch.testing.assert_close(u @ v, layer.weight, rtol=0, atol=1e-8)
    assert shift is not None
    torch.testing.assert_close(shift, torch.zeros_like(shift), rtol=0, atol=1e-7)
    assert layer.spectrum().losses[-1] == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bias_makes_the_mean_output_exact_at_every_rank(shape: tuple[int, int]):
    layer = Layer(shape)
    expected = (layer.x @ layer.weight.T + layer.bias).mean(0)
    for rank in range(1, min(shape) + 1):
        u, v, shift = layer.factors(rank)
        assert shift is not None
        found = (layer.x @ (u @ v).T + layer.bias + shift).mean(0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    u, v, _ = layer.factors(1)
    bare = (layer.x @ (u @ v).T + layer.bias).mean(0)
    assert (bare - expected).norm() > 1e-2, "the example must need the shift"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mean_that_moves_changes_only_the_bias(shape: tuple[int, int]):
    layer, moved = Layer(shape), Layer(shape)
    moved.x = layer.x + 5
    moved.mean = layer.mean + 5
    (u, v, shift), (u_moved, v_moved, shift_moved) = layer.factors(3), moved.factors(3)
    torch.testing.assert_close(u_moved @ v_moved, u @ v, rtol=0, atol=1e-8)
    expected = shift + (layer.weight - u @ v) @ torch.full_like(layer.mean, 5.0)
    torch.testing.assert_close(shift_moved, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_losses_have_the_unit_of_the_model_loss(shape: tuple[int, int]):
    layer, larger = Layer(shape), Layer(shape)
    larger.g = layer.g * 2
    larger.gradient = layer.gradient * 4
    torch.testing.assert_close(larger.spectrum().losses, layer.spectrum().losses * 4)
    u, v, _ = layer.factors(2)
    u_larger, v_larger, _ = larger.factors(2)
    torch.testing.assert_close(u_larger @ v_larger, u @ v, rtol=0, atol=1e-9)


def test_centred_is_the_covariance():
    rows = draw(50, 4) + 3
    moments = Moments(rows.mean(0), rows.T @ rows / 50, None)
    torch.testing.assert_close(covariance_of(moments), torch.cov(rows.T, correction=0))


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.encoder.layer.0.attention.self.value"),
        ("bert", "bert.encoder.layer.1.intermediate.dense"),
        ("bert", "bert.encoder.layer.0.output.dense"),
        ("gpt2", "transformer.h.0.attn.c_attn"),
        ("gpt2", "transformer.h.1.mlp.c_proj"),
        ("llama", "model.layers.1.mlp.down_proj"),
        ("llama", "model.layers.1.self_attn.k_proj"),
    ],
)
def test_in_a_model_the_mean_output_over_real_tokens_is_kept(family: Family, name: str, labels: int):
    """One layer alone is replaced, so its inputs are those of calibration."""
    model, batches = tiny_model(family, labels), tiny_batches()
    compressed = Kfac(keep=0.3, allocation="uniform", include=name).apply(
        copy_sharing_parameters(model), Resources(calibration=batches)
    )
    assert isinstance(compressed.get_submodule(name), LowRank)
    before, after = mean_output(model, name, batches), mean_output(compressed, name, batches)
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5 * float(before.abs().max()))


def mean_output(model, name, batches) -> Tensor:
    rows: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, out: rows.append(out))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    handle.remove()
    masks = [batch["attention_mask"].bool() for batch in batches]
    return torch.cat([row[mask] for row, mask in zip(rows, masks, strict=True)]).double().mean(0)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_spectra_of_a_model_are_those_of_its_moments(family: Family, temperature: float):
    """Every layer gets its own metric: what one keeps for layers with shared inputs must not leak into others."""
    model, batches = tiny_model(family), tiny_batches()
    names = Architecture.of(model).linears
    resources = Resources(calibration=batches, seed=4)
    found = dict(Kfac(keep=0.5, temperature=temperature).spectra(model, names, resources))
    moments = collect_moments(model, batches, names, seed=4, temperature=temperature)
    assert list(found) == list(names)
    for name in names:
        weight, own = dense_weight(model.get_submodule(name)), moments[name]
        if narrower_side(weight) is Side.INPUT:
            inner = root_and_inverse(covariance_of(own), damping=ACTIVATION_DAMPING).root
            energies = torch.linalg.eigvalsh(inner.T @ own.gradient @ inner)
        else:
            inner = root_and_inverse(own.gradient, damping=DAMPING).root
            energies = torch.linalg.eigvalsh(inner.T @ covariance_of(own) @ inner)
        torch.testing.assert_close(found[name].losses[0], energies.clamp_min(0).sum() / 2, rtol=1e-9, atol=0)
        torch.testing.assert_close(found[name].losses[-2], energies[0].clamp_min(0) / 2, rtol=1e-4, atol=1e-12)
        assert torch.equal(found[name].mean, own.mean)


def test_small_losses_predict_the_divergence():
    """The tail of one layer's spectrum is the KL to second order, up to what K-FAC leaves out: within a factor."""
    model, batches = tiny_model("bert", seed=1), tiny_batches(count=8, batch_size=8)
    name = "bert.encoder.layer.1.output.dense"
    # averaged over many seeds the gradient moment is the exact Fisher, up to sampling
    runs = [collect_moments(model, batches, [name], seed=seed)[name] for seed in range(10)]
    gradient = torch.stack([run.gradient for run in runs]).mean(0)
    weight = dense_weight(model.get_submodule(name))
    whole = svd_in_metric(weight, root_and_inverse(gradient, damping=DAMPING), covariance_of(runs[0]), runs[0].mean)
    rank = 28
    u, v, shift = factors_at_rank(weight, whole, rank)
    compressed = copy.deepcopy(model)
    layer = compressed.get_submodule(name)
    layer.weight.data = u @ v
    layer.bias.data = dense_bias(layer) + shift
    with torch.no_grad():
        p = torch.cat([model(**batch).logits for batch in batches]).double().log_softmax(-1)
        q = torch.cat([compressed(**batch).logits for batch in batches]).double().log_softmax(-1)
    divergence = float((p.exp() * (p - q)).sum(-1).mean())
    assert divergence / 10 < float(whole.losses[rank]) < divergence * 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 2}, r"0 < keep <= 1 must hold, but got keep=2"),
        ({"keep": 0.5, "damping": 0.0}, r"0 < damping <= 1e\+12 must hold, but got damping=0.0; "),
        ({"keep": 0.5, "damping": -1e-3}, r"0 < damping <= 1e\+12 must hold, but got damping=-0.001"),
        ({"keep": 0.5, "temperature": 0.0}, r"0 < temperature <= 1000 must hold, but got temperature=0.0"),
        ({"keep": 0.5, "damping": "auto"}, r"damping must be of type float, but got damping='auto'"),
        (
            {"keep": 0.5, "allocation": "best"},
            r"allocation must be one of uniform, by_loss, by_time, algorithm_2, ranks, but got allocation='best'",
        ),
    ],
)
def test_bad_parameters_are_refused(given: dict, message: str):
    with pytest.raises(InvalidParameter, match=message):
        Kfac(**given)


def test_calibration_data_are_required():
    with pytest.raises(MissingResource, match="calibration data must be given, but got none"):
        Kfac(keep=0.5).apply(tiny_model("bert"), Resources())
