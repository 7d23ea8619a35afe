import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import VOCAB, noise_of, padded, sentences_of, tiny_batches
from recurrent import tiny_lstm, tokens
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter
from whet.evaluation import records
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.architecture import Architecture, dense_weight
from whet.models.layers.low_rank import LowRank
from whet.models.lstm import LstmConfig, LstmForCausalLM, LstmLayer
from whet.models.surgery import replace_module
from whet.numerics.low_rank import factors_at_rank, output_pca
from whet.numerics.moments import Moments
from whet.tasks.data import Batches

NAMES = ("layers.0.input", "layers.0.recurrent", "layers.1.input", "layers.1.recurrent", "lm_head")


def listen(model: nn.Module) -> None:
    """Make every layer go step by step."""
    for module in model.modules():
        if isinstance(module, LstmLayer):
            module.recurrent.register_forward_pre_hook(lambda _module, _inputs: None)


def torch_lstm(model: LstmForCausalLM) -> nn.LSTM:
    hidden = model.config.hidden_size
    other = nn.LSTM(hidden, hidden, num_layers=len(model.layers), batch_first=True)
    for number, layer in enumerate(model.layers):
        for name, value in (
            ("weight_ih", layer.input.weight),
            ("weight_hh", layer.recurrent.weight),
            ("bias_ih", torch.zeros_like(layer.recurrent.bias)),
            ("bias_hh", layer.recurrent.bias),
        ):
            getattr(other, f"{name}_l{number}").data.copy_(value)
    return other


@pytest.mark.parametrize("by_steps", [False, True])
def test_outputs_gradients_and_states_are_those_of_torch(by_steps: bool):
    model = tiny_lstm()
    other = torch_lstm(model)
    if by_steps:
        listen(model)
    ids, noise = tokens(), torch.randn(3, 9, VOCAB, generator=torch.Generator().manual_seed(2))
    state = torch.randn(2, 2, 3, 12, generator=torch.Generator().manual_seed(3))
    found = model(ids, state=state)
    hidden, (last, cell) = other(model.embed_tokens(ids), (state[:, 0].contiguous(), state[:, 1].contiguous()))
    expected = model.lm_head(hidden)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.state, torch.stack((last, cell), 1), rtol=0, atol=1e-5)
    weights = [layer.get_submodule(name).weight for layer in model.layers for name in ("input", "recurrent")]
    biases = [layer.recurrent.bias for layer in model.layers]
    own = torch.autograd.grad(found.logits, [*weights, *biases, model.embed_tokens.weight], noise)
    theirs = [getattr(other, f"weight_{kind}_l{number}") for number in (0, 1) for kind in ("ih", "hh")]
    theirs += [other.bias_hh_l0, other.bias_hh_l1]
    wanted = torch.autograd.grad(expected, [*theirs, model.embed_tokens.weight], noise)
    for a, b in zip(own, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_kernel_and_the_steps_agree_in_training():
    kernel, steps = tiny_lstm(dropout=0.0).train(), tiny_lstm(dropout=0.0).train()
    listen(steps)
    results = []
    for model in (kernel, steps):
        logits = model(tokens(5, 20)).logits
        logits.square().mean().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_only_untouched_layers_take_the_kernel(monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    kernel = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *given: (calls.append(1), kernel(*given))[1])
    model = tiny_lstm()
    model(tokens())
    assert len(calls) == 2
    for name in ("layers.0.recurrent", "layers.1.input"):
        weight = dense_weight(model.get_submodule(name))
        replace_module(model, name, LowRank(12, 48, 3, bias=False).to(weight))
    model(tokens())
    assert len(calls) == 2


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_carried_state_is_one_long_pass(cut: int):
    model, ids = tiny_lstm(), tokens()
    whole, first = model(ids), model(ids[:, :cut])
    second = model(ids[:, cut:], state=first.state)
    torch.testing.assert_close(torch.cat((first.logits, second.logits), 1), whole.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.state, whole.state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_neither_real_tokens_nor_the_state(side: str):
    model, ids = tiny_lstm(), tokens(2, 6)
    more, mask = tokens(2, 3) * 0 + 7, torch.ones(2, 9, dtype=torch.long)
    if side == "left":
        both, place = torch.cat((more, ids), 1), slice(3, 9)
        mask[:, :3] = 0
    else:
        both, place = torch.cat((ids, more), 1), slice(0, 6)
        mask[:, 6:] = 0
    found, expected = model(both, attention_mask=mask), model(ids)
    torch.testing.assert_close(found.logits[:, place], expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.state, expected.state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_save_and_load_is_bit_equal(tied: bool, tmp_path):
    model = tiny_lstm(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, LstmForCausalLM)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), LstmConfig)
    assert torch.equal(again(tokens()).logits, model(tokens()).logits)
    assert (again.lm_head.weight is again.embed_tokens.weight) is tied
    assert not again.training


def test_fresh_weights_stay_in_their_range():
    model = LstmForCausalLM(LstmConfig(vocab_size=VOCAB, hidden_size=12, initializer_range=0.01))
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    assert 0.009 < float(weights.abs().max()) <= 0.01
    assert not model.lm_head.bias.any()


@pytest.mark.parametrize("size", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_sizes_are_checked(size: str):
    with pytest.raises(InvalidParameter, match=f"all sizes must be at least 1, but got .*{size}=0"):
        LstmForCausalLM(LstmConfig(**{size: 0}))


def test_all_matrices_can_be_compressed_and_a_tied_softmax_cannot():
    assert Architecture.of(tiny_lstm()).linears == NAMES
    assert Architecture.of(tiny_lstm()).blocks == ("layers.0", "layers.1")
    assert Architecture.of(tiny_lstm(tie_word_embeddings=True)).linears == NAMES[:-1]
    model = tiny_lstm()
    replace_module(model, "lm_head", LowRank(12, VOCAB, 3, bias=True))
    assert Architecture.of(model).linears == NAMES[:-1]


def by_hand(model: LstmForCausalLM, batches: Batches, seed: int) -> dict[str, Moments]:
    """The definition of the moments, one real sentence at a time, in float64 and from the gates' own equations."""
    exact = copy.deepcopy(model).double()
    rows: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    backward: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    examples = 0
    for batch, sentences in zip(batches, sentences_of(batches), strict=True):
        noise = noise_of(model(**batch).logits.detach(), seed, examples).double()
        real = batch["attention_mask"].bool()
        for i, sentence in enumerate(sentences):
            examples += 1
            seen, logits = one_sentence(exact, torch.from_numpy(sentence))
            for name in NAMES:
                gradients = torch.autograd.grad(logits, seen[name], noise[i][real[i]], retain_graph=True)
                rows[name] += [one.detach() for one in seen[name]]
                backward[name] += gradients
    found = {}
    for name in NAMES:
        z, h = torch.stack(rows[name]), torch.stack(backward[name])
        found[name] = Moments(z.mean(0), z.T @ z / len(z), h.T @ h / examples)
    return found


def one_sentence(model: LstmForCausalLM, ids: Tensor) -> tuple[dict[str, list[Tensor]], Tensor]:
    """Every input of every matrix, each a tensor of its own so that it has its own gradient, and the logits."""
    seen: dict[str, list[Tensor]] = {name: [] for name in NAMES}

    def enter(name: str, tensor: Tensor) -> Tensor:
        own = tensor.clone() if tensor.requires_grad else tensor.clone().requires_grad_()
        seen[name].append(own)
        return own

    states = [(torch.zeros(12).double(), torch.zeros(12).double()) for _ in model.layers]
    logits = []
    for token in ids:
        x = model.embed_tokens.weight[token].detach()
        for number, layer in enumerate(model.layers):
            hidden, cell = states[number]
            gates = layer.input.weight @ enter(f"layers.{number}.input", x)
            gates = gates + layer.recurrent.weight @ enter(f"layers.{number}.recurrent", hidden) + layer.recurrent.bias
            i, f, g, o = gates.split(12)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            x = torch.sigmoid(o) * torch.tanh(cell)
            states[number] = (x, cell)
        logits.append(model.lm_head.weight @ enter("lm_head", x) + model.lm_head.bias)
    return seen, torch.stack(logits)


@pytest.mark.parametrize(("extra", "filler"), [(0, 0), (5, 7)])
def test_moments_are_those_of_every_real_step(extra: int, filler: int):
    model, batches = tiny_lstm(), tiny_batches(count=2)
    more = Batches([padded(some, extra=extra, filler=filler) for some in sentences_of(batches)], batches.labels)
    expected, found = by_hand(model, more, 5), collect_moments(model, more, NAMES, seed=5)
    for name in NAMES:
        for a, b in zip(found[name], expected[name], strict=True):
            assert a is not None
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


def test_moments_need_no_gradients_and_any_choice_of_layers_gives_the_same():
    model, batches = tiny_lstm(), tiny_batches(count=2)
    together = collect_moments(model, batches, NAMES, seed=0)
    plain = collect_moments(model, batches, NAMES)
    for name in NAMES:
        torch.testing.assert_close(plain[name].second, together[name].second, rtol=1e-5, atol=1e-6)
        alone = collect_moments(model, batches, [name], seed=0)[name]
        for a, b in zip(alone, together[name], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


def test_a_recurrent_layer_that_misses_steps_is_refused():
    class Lazy(LstmForCausalLM):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, state: Tensor | None = None) -> Any:
            half = super().forward(input_ids[:, : input_ids.shape[1] // 2])
            return type("Output", (), {"logits": half.logits[:, -1]})

    with pytest.raises(InvalidModel, match=r"layers.0.recurrent must see one row per token, but got 4 of the 8"):
        collect_moments(Lazy(tiny_lstm().config).eval(), tiny_batches(ragged=False), ["layers.0.recurrent"])


def test_drone_at_full_rank_is_exact():
    model, batches = tiny_lstm(), tiny_batches()
    ids, moments = tokens(), collect_moments(model, batches, NAMES)
    before = model(ids).logits
    for name in NAMES:
        layer = model.get_submodule(name)
        u, v, _ = factors_at_rank(dense_weight(layer), output_pca(dense_weight(layer), moments[name].second), 12)
        torch.testing.assert_close(u @ v, dense_weight(layer), rtol=0, atol=1e-4)
        replace_module(model, name, LowRank.of(u, v, layer.bias))
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=1e-3)


METHODS = ("svd", "drone", "kfac")


@pytest.mark.parametrize("method", METHODS)
def test_a_compressed_model_is_the_same_after_save_and_load(method: str, tmp_path, tokenizer):
    model = tiny_lstm()
    recipe = Recipe.from_list([{"method": method, "keep": 0.5}])
    compressed = recipe.apply(model, Resources(calibration=tiny_batches()))
    factored = [name for name, module in compressed.named_modules() if isinstance(module, LowRank)]
    assert "lm_head" in factored
    assert "layers.0.recurrent" in factored
    assert sum(map(torch.Tensor.numel, compressed.parameters())) < sum(map(torch.Tensor.numel, model.parameters()))
    folder = tmp_path / "compressed"
    records.save_model(compressed, tokenizer, folder, recipe=recipe.to_list(), origin="a test", seed=0)
    artifact.verify(folder)
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert type(again.lm_head) is LowRank
    assert torch.equal(again(tokens()).logits, compressed(tokens()).logits)


def test_data_lowers_the_error_of_the_same_ranks():
    """Drone minimises the outputs' error on what it saw, one layer at a time; each layer alone shows it."""
    model, batches = tiny_lstm(), tiny_batches()
    for name in NAMES:
        weight, second = (
            dense_weight(model.get_submodule(name)).double(),
            collect_moments(model, batches, [name])[name].second,
        )
        errors = []
        for method in ("svd", "drone"):
            recipe = Recipe.from_list([{"method": method, "keep": 0.5, "include": name}])
            layer = recipe.apply(model, Resources(calibration=batches)).get_submodule(name)
            assert isinstance(layer, LowRank)
            lost = weight - layer.u.weight.detach().double() @ layer.v.weight.detach().double()
            errors.append(float((lost @ second @ lost.T).trace()))
        assert errors[1] < errors[0]


def test_the_loss_and_the_hidden_states_are_those_of_other_decoders():
    model, ids = tiny_lstm(), tokens()
    labels = ids.masked_fill(ids % 3 == 0, -100)
    found = model(ids, labels=labels, output_hidden_states=True)
    kept = labels[:, 1:] != -100
    wanted = -found.logits[:, :-1].log_softmax(-1)[kept].gather(1, labels[:, 1:][kept][:, None]).mean()
    torch.testing.assert_close(found.loss, wanted)
    assert model(ids).loss is None and model(ids).hidden_states is None
    assert torch.equal(found.hidden_states[0], model.embed_tokens(ids)) and len(found.hidden_states) == 3
    torch.testing.assert_close(model.lm_head(found.hidden_states[-1]), found.logits)
