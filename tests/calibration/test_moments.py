import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from families import tiny
from helpers import FAMILIES, Family, noise_of, padded, sentences_of, tiny_batches, tiny_model
from whet.calibration.gradients import fisher_noise, noise_generator
from whet.calibration.moments import collect_moments
from whet.errors import InvalidModel
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.numerics.moments import Moments, Side, narrower_side
from whet.tasks.data import Batch, Batches
from whet.tasks.kinds.base import kind_named

ENCODERS: tuple[Family, ...] = ("bert", "distilbert", "roberta")


class Pass:
    """One sentence without padding through a float64 copy: what enters and leaves each layer."""

    def __init__(self, model: nn.Module, layers: tuple[str, ...], sentence: np.ndarray) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        handles = [model.get_submodule(name).register_forward_hook(self._keep(name)) for name in layers]
        ids = torch.from_numpy(sentence)[None]
        self.logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        for handle in handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            self.inputs[name], self.outputs[name] = inputs[0][0].detach(), out

        return hook

    def gradients(self, name: str, noise: Tensor) -> Tensor:
        """(tokens, out) gradient of noise · logits at the layer's output."""
        return torch.autograd.grad(self.logits, self.outputs[name], noise, retain_graph=True)[0][0]


def double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()


def brute_force(model: nn.Module, batches: Batches, layers: tuple[str, ...], seed: int) -> dict[str, Moments]:
    """The definition of the moments, sentence by sentence and in float64, with the same noise."""
    exact = double(model)
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    backward: dict[str, list[Tensor]] = {name: [] for name in layers}
    examples = 0
    for batch, sentences in zip(batches, sentences_of(batches), strict=True):
        noise = noise_of(model(**batch).logits.detach(), seed, examples).double()
        for sentence, own in zip(sentences, noise, strict=True):
            examples += 1
            found = Pass(exact, layers, sentence)
            for name in layers:
                weight = dense_weight(exact.get_submodule(name))
                gradient = found.gradients(name, own)
                if weight.shape[1] <= weight.shape[0]:
                    rows[name].append(found.inputs[name])
                    backward[name].append(gradient @ weight)
                else:
                    rows[name].append(found.inputs[name] @ weight.T)
                    backward[name].append(gradient)
    moments = {}
    for name in layers:
        z, h = torch.cat(rows[name]), torch.cat(backward[name])
        moments[name] = Moments(z.mean(0), z.T @ z / len(z), h.T @ h / examples)
    return moments


def assert_close(found: Moments, expected: Moments, *, rtol: float = 2e-5) -> None:
    """Equal up to the rounding of a forward pass in fp32, measured against the largest entry."""
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        assert b is not None
        assert a.dtype == torch.float64
        torch.testing.assert_close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_every_real_token(family: Family, labels: int):
    model, batches = tiny_model(family, labels), tiny_batches(count=3)
    layers = Architecture.of(model).linears
    sides = {narrower_side(dense_weight(model.get_submodule(name))) for name in layers}
    assert sides == {Side.INPUT, Side.OUTPUT}, "both sides must be tried"
    found, expected = collect_moments(model, batches, layers, seed=5), brute_force(model, batches, layers, 5)
    for name in layers:
        assert_close(found[name], expected[name])


def test_the_output_side_leaves_the_bias_out():
    model, batches = tiny_model("bert"), tiny_batches(count=1, ragged=False)
    name = "bert.encoder.layer.0.output.dense"
    found = collect_moments(model, batches, [name])[name]
    seen = Pass(double(model), (name,), batches.batches[0]["input_ids"][0].numpy())
    bias = dense_bias(model.get_submodule(name))
    assert bias is not None
    assert bias.norm() > 0.1
    everything = [Pass(double(model), (name,), ids.numpy()) for ids in batches.batches[0]["input_ids"]]
    outputs = torch.cat([one.outputs[name][0] for one in everything]).detach()
    torch.testing.assert_close(found.mean + bias.double(), outputs.mean(0), rtol=0, atol=1e-5)
    assert seen.outputs[name].shape[-1] == len(found.mean)


def repadded(batches: Batches, *, extra: int, filler: int) -> Batches:
    again: list[Batch] = [padded(sentences, extra=extra, filler=filler) for sentences in sentences_of(batches)]
    return Batches(again, batches.labels)


@pytest.mark.parametrize(("extra", "filler"), [(0, 7), (9, 0), (9, 7), (20, 98)])
@pytest.mark.parametrize("family", FAMILIES)
def test_neither_the_amount_nor_the_content_of_padding_matters(family: Family, extra: int, filler: int):
    model, batches = tiny_model(family), tiny_batches(count=3)
    layers = Architecture.of(model).linears
    # decoders find the token that they classify by the padding's id, so other ids there do change their logits
    seed = 3 if family in ENCODERS or filler == 0 else None
    before = collect_moments(model, batches, layers, seed=seed)
    after = collect_moments(model, repadded(batches, extra=extra, filler=filler), layers, seed=seed)
    for name in layers:
        if seed is None:
            torch.testing.assert_close(after[name].second, before[name].second, rtol=1e-5, atol=1e-5)
        else:
            assert_close(after[name], before[name])


def test_how_examples_are_batched_does_not_matter():
    model, batches = tiny_model("bert"), tiny_batches(count=4, batch_size=3)
    layers = Architecture.of(model).linears
    sentences = [sentence for batch in sentences_of(batches) for sentence in batch]
    single = Batches([padded([sentence]) for sentence in sentences], batches.labels)
    whole = Batches([padded(sentences)], batches.labels)
    for one, other in ((single, whole), (batches, whole)):
        a, b = collect_moments(model, one, layers, seed=1), collect_moments(model, other, layers, seed=1)
        for name in layers:
            assert_close(a[name], b[name])


def test_padding_on_the_left_is_left_out_too():
    model, batches = tiny_model("bert"), tiny_batches(count=2)
    layers = Architecture.of(model).linears
    turned: list[Batch] = []
    for batch in batches:
        # every position id is given, so that a sentence stays the same when it moves
        position = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
        turned.append({key: value.flip(1) for key, value in {**batch, "position_ids": position}.items()})
    # without gradients: BERT's pooler reads the first position, so its logits do change
    before, after = (
        collect_moments(model, batches, layers),
        collect_moments(model, Batches(turned, batches.labels), layers),
    )
    for name in layers:
        torch.testing.assert_close(after[name].mean, before[name].mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(after[name].second, before[name].second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["albert", "deberta-v2"])
def test_layers_that_run_several_times_sum_over_their_uses(family: str):
    """ALBERT has one block for all; DeBERTa's queries and keys read relative positions too, its values do not."""
    model = tiny(family)
    layers = tuple(
        name for name in Architecture.of(model).linears if name.endswith(("query", "query_proj", "value_proj"))
    )
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    backward: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            seen[name].append(inputs[0].detach().flatten(0, -2))
            out.register_hook(lambda gradient: backward[name].append((gradient @ dense_weight(layer)).flatten(0, -2)))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    batches = tiny_batches(count=2, ragged=False)
    for i, batch in enumerate(batches):
        logits = model(**batch).logits
        logits.backward(noise_of(logits.detach(), 5, 4 * i))
    for handle in handles:
        handle.remove()
    found = collect_moments(model, batches, layers, seed=5)
    for name in layers:
        z, h = torch.cat(seen[name]).double(), torch.cat(backward[name]).double()
        assert len(z) > 8 * 8 or "value" in name, "the layer runs on more than the tokens"
        assert_close(found[name], Moments(z.mean(0), z.T @ z / len(z), h.T @ h / 8), rtol=1e-4)


def test_layers_that_read_the_same_tensor_share_their_moment():
    model = tiny_model("bert")
    found = collect_moments(model, tiny_batches(), Architecture.of(model).linears, seed=0)
    for block in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
        query, key, value = (found[f"{block}.attention.self.{one}"] for one in ("query", "key", "value"))
        assert query.second is key.second is value.second
        assert query.mean is key.mean is value.mean
        assert query.gradient is not key.gradient
        assert found[f"{block}.attention.output.dense"].second is not query.second
    llama = tiny_model("llama")
    found = collect_moments(llama, tiny_batches(), Architecture.of(llama).linears)
    assert found["model.layers.1.mlp.gate_proj"].second is found["model.layers.1.mlp.up_proj"].second


def test_any_choice_of_layers_gives_the_same_moments():
    model, batches = tiny_model("bert"), tiny_batches(count=2)
    layers = Architecture.of(model).linears
    together = collect_moments(model, batches, layers, seed=0)
    for name in layers:
        assert_close(collect_moments(model, batches, [name], seed=0)[name], together[name], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_second_moment_is_the_exact_fisher_over_all_signs(monkeypatch: pytest.MonkeyPatch, temperature: float):
    """Averaged over every pattern of signs, the gradient moment is Σ J'(diag(p) − pp')J, J by explicit autograd."""
    model, batches = tiny_model("bert"), tiny_batches(count=2)
    layers = Architecture.of(model).linears
    patterns = list(itertools.product((0, 1), repeat=3))
    total = {name: torch.zeros(()).double() for name in layers}
    for pattern in patterns:
        monkeypatch.setattr(
            torch, "randint", lambda _low, _high, shape, pattern=pattern, **_: torch.tensor(pattern).expand(shape)
        )
        for name, moments in collect_moments(model, batches, layers, seed=0, temperature=temperature).items():
            assert moments.gradient is not None
            total[name] = total[name] + moments.gradient / len(patterns)
    exact = exact_fisher(model, batches, layers, temperature)
    for name in layers:
        torch.testing.assert_close(total[name], exact[name], rtol=0, atol=2e-5 * float(exact[name].abs().max()))


def test_averages_over_seeds_converge_to_the_exact_fisher():
    model, batches = tiny_model("bert"), tiny_batches(count=2)
    layers = Architecture.of(model).linears[-2:]
    exact = exact_fisher(model, batches, layers)
    runs = [collect_moments(model, batches, layers, seed=seed) for seed in range(150)]
    for name in layers:
        gradients = torch.stack([run[name].gradient for run in runs])
        few, many = (float((gradients[:count].mean(0) - exact[name]).norm() / exact[name].norm()) for count in (5, 150))
        assert many < 0.08
        assert many < few
        assert float(gradients.mean(0).trace() / exact[name].trace()) == pytest.approx(1, abs=0.08)


def exact_fisher(
    model: nn.Module, batches: Batches, layers: tuple[str, ...], temperature: float = 1.0
) -> dict[str, Tensor]:
    exact = double(model)
    sentences = [sentence for batch in sentences_of(batches) for sentence in batch]
    total = {name: torch.zeros(()).double() for name in layers}
    for sentence in sentences:
        found = Pass(exact, layers, sentence)
        p = (found.logits.detach() / temperature).softmax(-1)
        curvature = p.diag() - p.outer(p)
        for name in layers:
            jacobian = torch.stack([found.gradients(name, unit) for unit in torch.eye(len(p)).double()])
            weight = dense_weight(exact.get_submodule(name))
            if weight.shape[1] <= weight.shape[0]:
                jacobian = jacobian @ weight
            each = torch.einsum("cti,cd,dtj->ij", jacobian, curvature, jacobian)
            total[name] = total[name] + each / len(sentences)
    return total


@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_noise_has_the_curvature_of_kl_as_its_covariance(classes: int, scale: float, monkeypatch: pytest.MonkeyPatch):
    logits = scale * torch.randn(classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
    patterns = torch.tensor(list(itertools.product((0, 1), repeat=classes)))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: patterns)
    noise = fisher_noise(kind_named("classification"), logits.expand(len(patterns), classes), torch.Generator())
    p = logits.softmax(-1)
    torch.testing.assert_close(noise.mean(0), torch.zeros(classes).double(), rtol=0, atol=1e-15)
    torch.testing.assert_close(noise.T @ noise / len(noise), p.diag() - p.outer(p), rtol=0, atol=1e-15)


def test_the_covariance_of_the_noise_is_the_second_derivative_of_kl():
    logits = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)

    def divergence(moved: Tensor) -> Tensor:
        p = logits.softmax(-1)
        return (p * (p.log() - moved.log_softmax(-1))).sum()

    p = logits.softmax(-1)
    hessian = torch.autograd.functional.hessian(divergence, logits)
    torch.testing.assert_close(hessian, p.diag() - p.outer(p))


def test_noise_leaves_what_softmax_cannot_see_alone():
    noise = fisher_noise(
        kind_named("classification"),
        torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).double(),
        torch.Generator(),
    )
    torch.testing.assert_close(noise.sum(-1), torch.zeros(4, 6).double(), rtol=0, atol=1e-15)


def test_noise_for_scores_is_a_random_sign():
    noise = fisher_noise(kind_named("regression"), torch.randn(500, 1), torch.Generator().manual_seed(0))
    assert noise.abs().eq(1).all()
    assert abs(float(noise.mean())) < 0.15


def test_every_example_draws_noise_of_its_own():
    drawn = {
        tuple(torch.randint(0, 2, (64,), generator=noise_generator(seed, i)).tolist())
        for seed in (0, 1)
        for i in range(9)
    }
    assert len(drawn) == 18


def test_noise_follows_the_generator():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        fisher_noise(kind_named("classification"), logits, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family: Family, seed: int | None):
    model = tiny_model(family)
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 > 0)
        parameter.grad = torch.full_like(parameter, float(i)) if i % 2 else None
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()
    collect_moments(model, tiny_batches(count=2), Architecture.of(model).linears, seed=seed)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    for i, parameter in enumerate(model.parameters()):
        assert (parameter.grad is None) if i % 2 == 0 else bool(parameter.grad.eq(float(i)).all())
    assert not any(module.training for module in model.modules())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        for name, module in model.named_modules()
        if name in Architecture.of(model).linears or isinstance(module, nn.Embedding)
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_the_same_seed_gives_the_same_moments_and_none_gives_no_gradients():
    model, batches = tiny_model("bert"), tiny_batches(count=2)
    layers = Architecture.of(model).linears
    first, again, other = (collect_moments(model, batches, layers, seed=seed) for seed in (0, 0, 1))
    plain = collect_moments(model, batches, layers)
    for name in layers:
        assert torch.equal(first[name].gradient, again[name].gradient)
        assert not torch.equal(first[name].gradient, other[name].gradient)
        assert plain[name].gradient is None
        # without gradients attention may take another kernel, so only up to rounding
        torch.testing.assert_close(plain[name].second, first[name].second, rtol=1e-5, atol=1e-5)


def test_hooks_and_requires_grad_are_restored_after_a_failure():
    model = tiny_model("bert")
    broken = Batches(
        [{"input_ids": torch.full((1, 3), 10_000), "attention_mask": torch.ones(1, 3).long()}], np.zeros(1)
    )
    with pytest.raises(IndexError):
        collect_moments(model, broken, Architecture.of(model).linears, seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_half_precision_rows_still_have_fp32_products():
    # a bfloat16 product is good to 3 digits only; the rows themselves are exact, so the sums must be
    model = tiny_model("bert").bfloat16()
    batches = tiny_batches(count=1, batch_size=8, ragged=False)
    name = "bert.encoder.layer.0.attention.self.query"
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    found = collect_moments(model, batches, [name])[name]
    handle.remove()
    rows = seen[0].reshape(-1, 32).double()
    torch.testing.assert_close(found.second, rows.T @ rows / len(rows), rtol=0, atol=1e-5 * float(rows.square().mean()))


def test_sums_over_many_batches_are_kept_in_float64():
    # 4000 equal rows: a sum kept in fp32 would drift by more than its products' rounding
    model, batch = tiny_model("bert"), tiny_batches(count=1, batch_size=1, ragged=False).batches[0]
    name = "bert.encoder.layer.0.attention.self.query"
    once = collect_moments(model, Batches([batch], np.zeros(1)), [name])[name]
    often = collect_moments(model, Batches([batch] * 301, np.zeros(301)), [name])[name]
    torch.testing.assert_close(often.second, once.second, rtol=1e-13, atol=0)


class Odd(nn.Module):
    """A model with a layer that does not see one row per token: fewer (one per example) or more (two per token)."""

    def __init__(self, rows: str) -> None:
        super().__init__()
        self.rows = rows
        self.embeddings = nn.Embedding(99, 4)
        self.layer = nn.Linear(4, 4)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = self.embeddings(input_ids)
        seen = hidden[:, 0] if self.rows == "fewer" else torch.cat([hidden, hidden], dim=1)
        return type("Output", (), {"logits": self.layer(seen).reshape(len(hidden), -1, 4).mean(1)})


@pytest.mark.parametrize("rows", ["fewer", "more"])
def test_a_layer_that_does_not_see_one_row_per_token_is_refused(rows: str):
    with pytest.raises(InvalidModel, match="layer must see one row per token, but got"):
        collect_moments(Odd(rows), tiny_batches(), ["layer"], seed=0)


@pytest.mark.parametrize(("shape", "side"), [((3, 5), Side.OUTPUT), ((5, 3), Side.INPUT), ((4, 4), Side.INPUT)])
def test_the_narrower_side_is_chosen_and_the_input_if_both_are_equal(shape: tuple[int, int], side: Side):
    assert narrower_side(torch.zeros(shape)) is side


@pytest.mark.parametrize("family", FAMILIES)
def test_on_both_sides_are_the_inputs_of_the_one_and_the_gradients_of_the_other(family: Family):
    model, batches = tiny_model(family), tiny_batches(count=3)
    layers = Architecture.of(model).linears
    inputs, outputs, both = (
        collect_moments(model, batches, layers, seed=5, sides=dict.fromkeys(layers, side)) for side in Side
    )
    for name in layers:
        wanted = Moments(inputs[name].mean, inputs[name].second, outputs[name].gradient)
        assert_close(both[name], wanted)
    without = collect_moments(model, batches, layers, sides=dict.fromkeys(layers, Side.BOTH))
    assert all(own.gradient is None for own in without.values())
