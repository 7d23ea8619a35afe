import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import Family, tiny_batches, tiny_model
from laws import draw
from whet.errors import NothingToCompress
from whet.models.attention import HeadWidths, SelfAttention, attention_at_widths
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.resized import Resized
from whet.models.surgery import replace_module
from whet.numerics.low_rank import Spectrum

ENCODERS: tuple[Family, ...] = ("bert", "roberta", "distilbert")
encoders = pytest.mark.parametrize("family", ENCODERS)


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def bases(width: int, heads: int, seed: int) -> list[Spectrum]:
    """Any invertible matrix and its inverse: of full rank, a projection that changes nothing."""
    p = [draw(width, width, seed=seed + i) + 3 * torch.eye(width, dtype=torch.float64) for i in range(heads)]
    return [Spectrum(one, one.inverse(), torch.zeros(width + 1)) for one in p]


def narrowed(model: nn.Module, widths: HeadWidths, mean: Tensor | None = None) -> nn.Module:
    for place in SelfAttention.all_of(model, "*"):
        scores, values = bases(place.width, 4, 1), bases(place.width, 4, 9)
        values = [one._replace(mean=mean) for one in values]
        found = attention_at_widths(model, place, scores, values, widths)
        replace_module(model, place.name, found.attention)
        if found.output is not None:
            replace_module(model, place.output, found.output)
    return model.eval()


@encoders
def test_every_attention_of_an_encoder_is_found(family: Family):
    places = SelfAttention.all_of(tiny_model(family), "*")
    assert [place.width for place in places] == [8, 8]
    assert [place.inside for place in places] == [family == "distilbert"] * 2
    assert ".0." in places[0].name and ".1." in places[1].name
    assert SelfAttention.all_of(tiny_model(family), "*.1.*") == places[1:]


@encoders
@pytest.mark.parametrize("mean", [None, torch.ones(8, dtype=torch.float64)])
def test_at_full_width_any_basis_gives_the_same_model(family: Family, mean: Tensor | None):
    model = tiny_model(family)
    expected = logits(model)
    merged = narrowed(model, HeadWidths(8, 8), mean)
    assert sum(isinstance(module, CompressedAttention) for module in merged.modules()) == 2
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=2e-4)


@encoders
def test_widths_of_scores_and_of_values_may_differ(family: Family):
    model = narrowed(tiny_model(family), HeadWidths(3, 5))
    layer = next(module for module in model.modules() if isinstance(module, CompressedAttention))
    assert (layer.query.out_features, layer.key.out_features, layer.value.out_features) == (12, 12, 20)
    after = layer.output or next(module.linear for module in model.modules() if isinstance(module, Resized))
    assert (after.in_features, after.out_features) == (20, 32)
    assert logits(model).isfinite().all()


@encoders
def test_it_is_attention_as_written_down(family: Family):
    """In a head: softmax(scaling · q kᵀ + mask) v, with the scaling of the model's own width."""
    model = narrowed(tiny_model(family), HeadWidths(3, 5))
    layer: Any = next(module for module in model.modules() if isinstance(module, CompressedAttention))
    hidden, mask = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0)), torch.ones(2, 1, 1, 6).bool()
    mask[1, :, :, 4:] = False
    q, k, v = (part(hidden).reshape(2, 6, 4, -1) for part in (layer.query, layer.key, layer.value))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 8**0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    expected = torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)
    expected = expected if layer.output is None else layer.output(expected)
    torch.testing.assert_close(layer(hidden, attention_mask=mask)[0], expected, rtol=1e-4, atol=1e-5)


@encoders
def test_every_implementation_of_attention_gives_the_same(family: Family):
    model = narrowed(tiny_model(family), HeadWidths(3, 5))
    model.set_attn_implementation("sdpa")
    fused = logits(model)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(logits(model), fused, rtol=0, atol=1e-5)


def test_dropout_is_for_training_only():
    model = narrowed(tiny_model("bert"), HeadWidths(3, 5))
    layer = next(module for module in model.modules() if isinstance(module, CompressedAttention))
    hidden = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    layer.dropout = 0.5
    assert torch.equal(layer(hidden)[0], layer(hidden)[0])
    layer.train()
    torch.manual_seed(0)
    assert not torch.equal(layer(hidden)[0], layer(hidden)[0])


def test_attentions_that_cannot_be_narrowed_are_refused_with_a_reason():
    with pytest.raises(NothingToCompress, match=r"LlamaForSequenceClassification, which rotates them.*--method heads"):
        SelfAttention.all_of(tiny_model("llama"), "*")
    with pytest.raises(NothingToCompress, match="but got GPT2ForSequenceClassification; factorise the projections"):
        SelfAttention.all_of(tiny_model("gpt2"), "*")
    with pytest.raises(NothingToCompress, match=r"no attention matches .x.; the attentions here are bert\.encoder"):
        SelfAttention.all_of(tiny_model("bert"), "x")


def test_a_decoder_is_no_encoder():
    model = tiny_model("bert")
    causal = copy.deepcopy(model)
    for place in SelfAttention.all_of(model, "*"):
        causal.get_submodule(place.name).is_decoder = True
    with pytest.raises(NothingToCompress, match="attention must be like BERT's"):
        SelfAttention.all_of(causal, "*")
