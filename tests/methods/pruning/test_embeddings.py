"""Pruned token embeddings: all pruning methods share them."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from helpers import FAMILIES, VOCAB, padded, sentences_of, tiny_batches, tiny_model
from whet.calibration.importance import token_counts
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, MissingResource, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.kfac import Kfac
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.pruning.sparsegpt import SparseGpt
from whet.methods.recipe import Recipe
from whet.methods.recovery.distillation import Distillation
from whet.models import artifact
from whet.models.embeddings import word_vectors
from whet.models.layers.masked import MaskedEmbedding, PackedSparseEmbedding
from whet.models.lstm import LstmConfig, LstmForCausalLM
from whet.models.surgery import to_storage
from whet.tasks.data import Batches

STEP = Magnitude(sparsity=0.0, embeddings=0.8)


def pruned(*steps, family="bert", train=None):
    train = train or tiny_batches()
    resources = Resources(calibration=tiny_batches(), train=train, teacher=tiny_model(family))
    return Recipe(steps or (STEP,)).apply(tiny_model(family), resources)


def test_tokens_are_counted_without_padding():
    wanted = torch.zeros(VOCAB)
    for batch in sentences_of(tiny_batches()):
        for sentence in batch:
            for token in sentence:
                wanted[token] += 1
    assert torch.equal(token_counts(tiny_batches(), VOCAB), wanted)
    assert wanted[0] == 0 and wanted.sum() == tiny_batches().tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_embeddings_change_outputs_on_training_text_least(family):
    """The sum of squares that is lost, over every token of the text, is the least of any choice of so many weights."""
    table = word_vectors(tiny_model(family))
    model = pruned(family=family)
    left = word_vectors(model)
    assert isinstance(model.get_input_embeddings(), MaskedEmbedding)
    gone = left == 0
    assert int(gone.sum()) == round(0.8 * table.numel())
    assert torch.equal(left[~gone], table[~gone])
    lost = (token_counts(tiny_batches(), VOCAB) + 1)[:, None] * table.square()
    assert lost[gone].max() <= lost[~gone].min()


def test_frequent_tokens_keep_more_weights():
    sentence = torch.full((12,), 5).numpy()
    model = pruned(train=Batches([padded([sentence] * 4)], tiny_batches(count=1).labels))
    left = (word_vectors(model) != 0).sum(1)
    assert left[5] >= 24 and left[7] < 15


def test_zeros_stay_zeros_in_training_and_the_others_move():
    before = word_vectors(pruned())
    after = word_vectors(pruned(STEP, Distillation(epochs=2, learning_rate=1e-2)))
    assert torch.equal(before == 0, after == 0)
    assert float((before != after).sum()) > 0.5 * int((before != 0).sum())


def test_logits_do_not_depend_on_gradient_mode():
    model, batch = pruned(), tiny_batches().batches[0]
    with torch.no_grad():
        without = model(**batch).logits
    assert torch.equal(model(**batch).logits, without)


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_layers_hold_bits_and_values(family, tmp_path, tokenizer):
    model = pruned(Magnitude(sparsity=0.5, embeddings=0.8), family=family)
    records.save_model(model, tokenizer, tmp_path / "m", recipe=Recipe((STEP,)).to_list(), origin="tiny", seed=0)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    table = word_vectors(model)
    [name] = [name for name, module in to_storage(model).named_modules() if isinstance(module, PackedSparseEmbedding)]
    bits, values = tensors[f"{name}.bits"], tensors[f"{name}.values"]
    assert bits.numel() == -(-table.numel() // 8) and values.numel() == int((table != 0).sum())
    assert not any(value.shape == table.shape for value in tensors.values())
    for loaded in (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "m"),
        artifact.load_verified(tmp_path / "m"),
    ):
        state = loaded.state_dict()
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
        assert loaded.get_input_embeddings().embedding.padding_idx == model.get_input_embeddings().padding_idx
    records.save_model(loaded, tokenizer, tmp_path / "again", recipe=Recipe((STEP,)).to_list(), origin="tiny", seed=0)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], value) for name, value in tensors.items())


def test_a_table_that_would_grow_is_stored_unchanged(tmp_path, tokenizer):
    model = pruned(Magnitude(sparsity=0.0, embeddings=0.01))
    records.save_model(model, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    assert not any(name.endswith(".bits") for name in load_file(tmp_path / "m" / "model.safetensors"))
    assert isinstance(artifact.load_verified(tmp_path / "m").get_input_embeddings(), MaskedEmbedding)


def test_layers_compensate_for_the_pruned_embeddings():
    first = pruned(SparseGpt(sparsity=0.5, embeddings=0.8))
    second = pruned(STEP, SparseGpt(sparsity=0.5))
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


def test_gradients_start_from_a_pruned_table_too():
    """As those do that other methods' statistics are made of."""
    model = pruned(STEP, Kfac(keep=0.5))
    assert isinstance(model.get_input_embeddings(), MaskedEmbedding)


def test_models_that_cannot_be_pruned_are_refused():
    with pytest.raises(InvalidParameter, match=r"0 <= embeddings < 1 must hold, but got embeddings=1.0"):
        Magnitude(sparsity=0.5, embeddings=1.0)
    assert Magnitude(sparsity=0.5).reads == frozenset()
    with pytest.raises(MissingResource, match=r"pruning.magnitude needs train data, but got none"):
        Recipe((STEP,)).apply(tiny_model("bert"), Resources())
    with pytest.raises(NothingToCompress, match=r"must be an ordinary table, but .* has MaskedEmbedding"):
        pruned(STEP, STEP)
    tied = LstmForCausalLM(LstmConfig(vocab_size=VOCAB, hidden_size=8, embedding_size=8, num_hidden_layers=1))
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight
    with pytest.raises(NothingToCompress, match=r"weights of their own, but .* and .* share them"):
        STEP.apply(tied, Resources(train=tiny_batches()))
