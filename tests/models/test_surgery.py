import json

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.errors import InvalidArtifact
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters, describe, rebuild, replace_module, unshare_parameters

NAME = "bert.encoder.layer.1.attention.output.dense"


def tied_models() -> list[nn.Module]:
    small = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return [
        GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, **small)),
        LlamaForCausalLM(
            LlamaConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                tie_word_embeddings=True,
                **small,
            )
        ),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_has_its_own_modules_and_the_same_weights(family: Family):
    model = tiny_model(family).train()
    copied = copy_sharing_parameters(model)
    assert not any(module.training for module in copied.modules())
    assert all(module.training for module in model.modules())
    assert not {id(module) for module in model.modules()} & {id(module) for module in copied.modules()}
    pairs = zip(model.named_parameters(), copied.named_parameters(), strict=True)
    assert all(name == other and mine is own for (name, mine), (other, own) in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_own_weights_are_equal_but_independent(family: Family):
    model = tiny_model(family)
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 > 0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    copied = copy_sharing_parameters(model)
    unshare_parameters(copied, model)
    assert list(copied.state_dict()) == list(state)
    assert all(torch.equal(copied.state_dict()[name], value) for name, value in state.items())
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    assert [parameter.requires_grad for parameter in copied.parameters()] == wanted
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.add_(1)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_weights_that_are_already_its_own_are_kept():
    model = tiny_model("bert")
    copied = copy_sharing_parameters(model)
    replace_module(copied, NAME, LowRank(32, 32, 5, bias=True))
    mine = list(copied.get_submodule(NAME).parameters())
    unshare_parameters(copied, model)
    after = list(copied.parameters())
    unshare_parameters(copied, model)
    assert all(a is b for a, b in zip(mine, copied.get_submodule(NAME).parameters(), strict=True))
    assert all(a is b for a, b in zip(after, copied.parameters(), strict=True))


@pytest.mark.parametrize("i", [0, 1], ids=["gpt2", "llama"])
def test_tied_weights_stay_tied(i: int):
    model = tied_models()[i]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    copied = copy_sharing_parameters(model)
    assert copied.get_output_embeddings().weight is copied.get_input_embeddings().weight
    unshare_parameters(copied, model)
    assert copied.get_output_embeddings().weight is copied.get_input_embeddings().weight
    assert copied.get_input_embeddings().weight is not model.get_input_embeddings().weight


def test_replacing_in_a_copy_leaves_the_original_whole():
    model = tiny_model("bert")
    before, batch = list(model.state_dict()), tiny_batches().batches[0]
    with torch.no_grad():
        logits = model(**batch).logits
        replace_module(copy_sharing_parameters(model), NAME, LowRank(32, 32, 5, bias=True))
        assert torch.equal(model(**batch).logits, logits)
    assert list(model.state_dict()) == before


@pytest.mark.parametrize("name", ["first", "inner.0", "inner.1.second"])
def test_replace_works_at_every_depth(name: str):
    model = nn.ModuleDict(
        {"first": nn.ReLU(), "inner": nn.ModuleList([nn.ReLU(), nn.ModuleDict({"second": nn.ReLU()})])}
    )
    names = [one for one, _ in model.named_modules()]
    new = nn.GELU()
    replace_module(model, name, new)
    assert model.get_submodule(name) is new
    assert [one for one, _ in model.named_modules()] == names
    assert sum(isinstance(module, nn.GELU) for module in model.modules()) == 1


def test_a_plain_model_describes_as_nothing():
    assert describe(tiny_model("bert")) == {}


@pytest.mark.parametrize("bias", [True, False])
def test_a_described_model_is_rebuilt_and_takes_the_weights(bias: bool):
    model = tiny_model("bert")
    replace_module(model, NAME, LowRank(32, 32, 5, bias=bias))
    described = json.loads(json.dumps(describe(model)))
    assert described == {NAME: {"kind": "low_rank", "in_features": 32, "out_features": 32, "rank": 5, "bias": bias}}
    empty = tiny_model("bert", seed=9)
    rebuild(empty, described)
    empty.load_state_dict(model.state_dict())
    batch = tiny_batches().batches[0]
    with torch.no_grad():
        assert torch.equal(empty(**batch).logits, model(**batch).logits)
    assert describe(empty) == described


def test_a_dense_model_does_not_take_the_weights_of_a_compressed_one():
    model = tiny_model("bert")
    replace_module(model, NAME, LowRank(32, 32, 5, bias=True))
    # the guard: not only are names unknown, which loaders forgive, but a weight has the wrong size, which they do not
    with pytest.raises(RuntimeError, match="size mismatch"):
        tiny_model("bert").load_state_dict(model.state_dict(), strict=False)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "magic"}, "a saved layer must be one of .*low_rank.*, but got 'magic'; update whet"),
        ({"kind": "low_rank", "rank": 3}, "a saved low_rank layer must be complete, but got"),
        ({"rank": 3}, "a saved layer must"),
    ],
    ids=["unknown kind", "incomplete", "no kind"],
)
def test_bad_descriptions_are_refused(entry: dict, message: str):
    with pytest.raises(InvalidArtifact, match=message):
        rebuild(tiny_model("bert"), {NAME: entry})


def test_a_described_layer_that_the_model_lacks_is_refused():
    entry = {"kind": "low_rank", "in_features": 32, "out_features": 32, "rank": 5, "bias": True}
    with pytest.raises(InvalidArtifact, match=r"encoder\.nowhere"):
        rebuild(tiny_model("bert"), {"bert.encoder.nowhere.dense": entry})


def test_low_rank_layers_compute_the_product_of_their_factors():
    generator = torch.Generator().manual_seed(0)
    u, v, bias = (torch.randn(shape, generator=generator) for shape in ((6, 3), (3, 4), (6,)))
    rows = torch.randn(2, 5, 4, generator=generator)
    torch.testing.assert_close(LowRank.of(u, v, bias)(rows), rows @ (u @ v).T + bias)
    torch.testing.assert_close(LowRank.of(u, v, None)(rows), rows @ (u @ v).T)
    assert LowRank.of(u.double(), v.double(), None).u.weight.dtype == torch.float64
