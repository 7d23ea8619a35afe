import pytest
from transformers import BertConfig, BertForSequenceClassification

from folders import classifier
from measured import saved
from whet.errors import InvalidModel, WhetError
from whet.evaluation import records
from whet.models import artifact
from whet.models.architecture import Architecture
from whet.models.layers.attention import CompressedAttention
from whet.models.layers.low_rank import LowRank
from whet.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from whet.models.surgery import copy_sharing_parameters, replace_module
from whet.report.layer_sizes import model_sizes, short_names, vocabulary_size


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "gpt2", "llama"])
def test_a_dense_model_has_full_size(tmp_path, tokenizer, family):
    model = classifier(family)
    saved(tmp_path / "dense", tokenizer, model=model)
    kept = model_sizes(tmp_path / "dense")
    layout = Architecture.of(model)
    assert kept.whole and kept.embeddings.share == 1
    assert len(kept.blocks) == len(layout.blocks)
    assert len(kept.blocks) * len(kept.parts) == len(layout.linears)
    assert all(share == (1, "") for block in kept.blocks for share in block)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "gpt2", "llama"])
def test_low_rank_layers_have_the_size_of_their_ranks(tmp_path, tokenizer, family):
    """Shares are those of the parameters, layer by layer, biases included."""
    saved(tmp_path / "small", tokenizer, [{"method": "svd", "keep": 0.4}], model=classifier(family))
    kept = model_sizes(tmp_path / "small")
    dense, small = classifier(family), artifact.load_verified(tmp_path / "small")
    found = [share for block in kept.blocks for share in block]
    for name, share in zip(Architecture.of(dense).linears, found, strict=True):
        layer = small.get_submodule(name)
        count, of = (sum(weight.numel() for weight in one.parameters()) for one in (layer, dense.get_submodule(name)))
        assert share.share == pytest.approx(count / of)
        assert share.form == (f"low rank: rank {layer.rank}" if isinstance(layer, LowRank) else "")
    assert not kept.whole and kept.embeddings.share == 1


def test_names_of_blocks_are_not_confused(tmp_path, tokenizer):
    """Though its name begins that of the other."""
    config = BertConfig(vocab_size=99, hidden_size=8, num_hidden_layers=11, num_attention_heads=2, intermediate_size=16)
    saved(tmp_path / "deep", tokenizer, model=BertForSequenceClassification(config).eval())
    kept = model_sizes(tmp_path / "deep")
    assert kept.whole and [len(block) for block in kept.blocks] == [6] * 11 and len(kept.parts) == 6


def test_fewer_bits_are_fewer_bytes(tmp_path, tokenizer):
    saved(tmp_path / "half", tokenizer, [{"method": "half"}])
    kept = model_sizes(tmp_path / "half")
    assert 0.5 <= kept.embeddings.share < 0.51
    assert all(0.5 <= share.share < 0.52 for block in kept.blocks for share in block)


def test_removed_words_are_counted(tmp_path, tokenizer):
    few, many = (BertConfig(vocab_size=n, hidden_size=8, num_hidden_layers=1, num_attention_heads=2) for n in (40, 99))
    for name, config in (("few", few), ("many", many)):
        saved(tmp_path / name, tokenizer, model=BertForSequenceClassification(config).eval())
    assert [vocabulary_size(tmp_path / name) for name in ("few", "many")] == [40, 99]
    rest = few.max_position_embeddings + few.type_vocab_size
    kept = model_sizes(tmp_path / "few", words=99)
    assert kept.embeddings.share == pytest.approx((40 + rest) / (99 + rest)) and not kept.whole
    assert model_sizes(tmp_path / "few").whole and model_sizes(tmp_path / "many", words=40).whole


def test_a_module_that_replaces_several_layers_shares_its_size(tmp_path, tokenizer):
    """Query, key and value that read one thin layer, which has no name of its own in the dense model."""
    model = copy_sharing_parameters(classifier())
    name = "bert.encoder.layer.0.attention.self"
    thin = CompressedAttention(
        32, heads=4, query_key_width=4, value_width=8, scaling=1.0, dropout=0.0, bias=True, output=False, rank=8
    )
    replace_module(model, name, thin)
    records.save_model(model, tokenizer, tmp_path / "thin", recipe=[], origin="base", seed=0)
    kept = model_sizes(tmp_path / "thin")
    expected = sum(weight.numel() for weight in thin.parameters()) / (3 * (32 * 32 + 32))
    assert [share.share for share in kept.blocks[0][:3]] == pytest.approx([expected] * 3)
    assert kept.blocks[0][0].form == "attention: rank 8, heads 4, query key width 4, value width 8"
    assert kept.blocks[0][3].share == kept.blocks[1][0].share == 1


def test_narrower_heads_are_measured_layer_by_layer(tmp_path, tokenizer):
    model = copy_sharing_parameters(classifier())
    narrow = CompressedAttention(
        32, heads=4, query_key_width=2, value_width=8, scaling=1.0, dropout=0.0, bias=True, output=False
    )
    replace_module(model, "bert.encoder.layer.1.attention.self", narrow)
    records.save_model(model, tokenizer, tmp_path / "narrow", recipe=[], origin="base", seed=0)
    query, key, value, *_ = model_sizes(tmp_path / "narrow").blocks[1]
    assert (query.share, key.share, value.share) == (0.25, 0.25, 1)
    assert "heads 4" in query.form


def test_a_model_without_blocks_has_no_layer_sizes(tmp_path, tokenizer):
    config = RecurrentConfig(vocab_size=99, hidden_size=8, embedding_size=8, num_labels=2)
    saved(tmp_path / "lstm", tokenizer, model=RecurrentForSequenceClassification(config).eval())
    assert model_sizes(tmp_path / "lstm") is None


def test_names_are_the_shortest_unique_ones():
    parts = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
    assert short_names(parts) == ["query", "attention.output", "intermediate", "output"]


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0not json", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 16])
def test_broken_weights_are_refused(tmp_path, tokenizer, content):
    saved(tmp_path / "model", tokenizer)
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    with pytest.raises(WhetError, match=r"must be a (whole )?safetensors file"):
        model_sizes(tmp_path / "model")


def test_a_broken_configuration_is_refused(tmp_path, tokenizer):
    saved(tmp_path / "model", tokenizer)
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InvalidModel, match=r"must hold config.json, but .* has an empty one; copy it again"):
        model_sizes(tmp_path / "model")
