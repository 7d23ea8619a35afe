"""What families do in their own way, and methods must stand: the roots of refusals and tracebacks of the matrix."""

from functools import partial

import pytest
import torch

from families import tiny
from helpers import PAD, VOCAB, tiny_batches
from whet.calibration.importance import activation_magnitudes, fisher_importance
from whet.calibration.moments import collect_moments
from whet.errors import InvalidModel, NothingToCompress
from whet.methods.factorization.embedding import weighted_factors
from whet.methods.suitability import refusals
from whet.models.architecture import Architecture
from whet.models.embeddings import row_scale, token_table, word_vectors
from whet.models.feed_forward import FeedForward
from whet.models.head_groups import attentions_with_heads
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.surgery import block_count, copy_sharing_parameters, keep_blocks, keep_words, replace_module
from whet.numerics.linalg import root_and_inverse
from whet.training.students.layer_subset import block_influences


@pytest.mark.parametrize("family", ["gpt_neo", "longformer"])
def test_what_a_configuration_says_of_each_block_leaves_with_it(family):
    model = tiny(family)
    keep_blocks(model, [0, 2])
    again = type(model)(type(model.config).from_dict(model.config.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    ids = torch.arange(5, 13)[None]
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_a_shared_block_runs_as_often_as_blocks_are_kept():
    model, ids = tiny("albert"), torch.arange(5, 13)[None]
    (shared,), runs = Architecture.of(model).blocks, []
    model.get_submodule(shared).register_forward_hook(lambda *_: runs.append(1))
    before = model(ids).logits
    assert block_count(model) == len(runs) == 3
    keep_blocks(model, [0, 2])
    assert block_count(model) == 2 and not torch.equal(model(ids).logits, before)
    assert len(runs) == 5
    influences = block_influences(model, tiny_batches(count=1))
    assert influences.shape == (2,) and (influences > 0).all() and influences[0] != influences[1]


@pytest.mark.parametrize("family", ["xlm", "funnel"])
def test_blocks_that_are_not_one_list_of_their_own_stay(family):
    with pytest.raises(InvalidModel, match=r"must be one (block|number), but"):
        keep_blocks(tiny(family), [0])


@pytest.mark.parametrize("family", ["ctrl", "lilt"])
def test_gradients_reach_every_layer(family):
    """CTRL scales embeddings in place; no answer depends on LiLT's last layout layers."""
    model = tiny(family)
    layers = [name for name in Architecture.of(model).linears if "output" not in name][:24]
    found = collect_moments(model, tiny_batches(count=1, ragged=False), layers, seed=0)
    for moments in found.values():
        assert moments.gradient is not None and moments.gradient.isfinite().all()
        assert torch.linalg.eigvalsh(moments.gradient).max() > 0


@pytest.mark.parametrize("family", ["gemma2", "biogpt"])
def test_a_scaled_table_of_words_is_one_with_larger_rows(family):
    """Its class multiplies what it looks up, so that rows that leave, and factors, keep the answers."""
    model, ids = tiny(family), torch.arange(5, 13)[None]
    with torch.no_grad():
        expected, looked_up = model(ids).logits, model.get_input_embeddings()(ids)[0]
    table = token_table(model)
    assert table.scale > 1 and row_scale(table.embedding) == table.scale
    torch.testing.assert_close(word_vectors(model)[5:13], looked_up)
    exact = weighted_factors(
        word_vectors(model), torch.ones(VOCAB), root_and_inverse(torch.eye(32).double(), damping=0), 32
    )
    factored = copy_sharing_parameters(model)
    replace_module(factored, table.place, LowRankEmbedding.of(*exact, table.embedding.padding_idx))
    keep_words(model, range(20))
    assert type(model.get_input_embeddings()) is type(table.embedding) and len(word_vectors(model)) == 20
    with torch.no_grad():
        torch.testing.assert_close(factored(ids).logits, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("family", ["longformer", "bert"])
def test_padding_that_a_model_adds_is_no_text(family):
    """Longformer pads texts to a multiple of its window; statistics are those of the texts that are padded before."""
    model = tiny(family)
    layers = Architecture.of(model).linears[-2:]
    texts, padded = tiny_batches(count=1), tiny_batches(count=1)
    [batch] = padded.batches
    assert batch["input_ids"].shape[1] % 4
    extra = -batch["input_ids"].shape[1] % 4
    values = {"input_ids": PAD}
    padded.batches[0] = {
        name: torch.nn.functional.pad(own, (0, extra), value=values.get(name, 0)) if own.dim() == 2 else own
        for name, own in batch.items()
    }
    found, expected = (collect_moments(model, one, layers, seed=0) for one in (texts, padded))
    weighed, wanted = (fisher_importance(model, one, layers, seed=0) for one in (texts, padded))
    for name in layers:
        torch.testing.assert_close(found[name].second, expected[name].second, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(weighed[name], wanted[name], rtol=1e-3, atol=1e-4 * float(wanted[name].max()))


@pytest.mark.parametrize(("family", "parts"), [("falcon", 3), ("xlm", 3), ("flaubert", 3)])
def test_neurons_are_found_behind_sums_in_place_and_in_lists_beside_the_attentions(family, parts):
    """Falcon adds its attention to what the feed-forward part gave, in place."""
    found = FeedForward.all_of(tiny(family), "*", tiny_batches())
    assert len(found) == parts and all(len(part.inputs) == 1 for part in found)


def test_statistics_of_a_model_that_reads_no_mask():
    model, batches = tiny("fnet"), tiny_batches(count=1)
    layers = Architecture.of(model).linears[-2:]
    for measure in (activation_magnitudes, partial(fisher_importance, seed=0)):
        found = measure(model, batches, layers)
        assert all(values.isfinite().all() and values.sum() > 0 for values in found.values())


def test_a_layer_on_which_no_answer_depends_has_no_importance():
    model, batches = tiny("lilt"), tiny_batches(count=1)
    layers = [name for name in Architecture.of(model).linears if "layer.2" in name and "output" in name]
    found = fisher_importance(model, batches, layers, seed=0)
    nothing = {name for name, values in found.items() if not values.any()}
    assert nothing and all("layout" in name for name in nothing)
    assert all(values.isfinite().all() for values in found.values()) and nothing < set(layers)


@pytest.mark.parametrize("family", ["funnel", "fnet", "olmo2"])
def test_every_method_is_asked(family, tokenizer):
    """Funnel does not count its blocks, FNet reads no mask, and OLMo's neurons pass for heads when small."""
    assert refusals(tiny(family), tokenizer)["pruning.structure"] == ""


def test_values_that_read_more_than_queries_leave_with_their_heads():
    """MobileBERT's queries and keys read a narrower vector than its values."""
    model = tiny("mobilebert")
    attentions = attentions_with_heads(model, "*", tiny_batches())
    assert len(attentions) == 3 and {attention.groups for attention in attentions} == {4}


def test_characters_are_no_table_of_tokens():
    with pytest.raises(NothingToCompress, match="an ordinary table, but CanineForSequenceClassification has none"):
        token_table(tiny("canine"))


def test_token_ids_beyond_the_table_stay_as_they_are():
    model = tiny("modernbert-decoder")
    beyond = model.config.cls_token_id
    assert beyond > model.config.vocab_size
    keep_words(model, [*range(50)])
    assert model.config.vocab_size == 50 and model.config.cls_token_id == beyond
