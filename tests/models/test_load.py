import json
import shlex
import shutil

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig

from families import tiny
from folders import classifier, edit_json, save
from helpers import FAMILIES, PAD, VOCAB, tiny_batches, tiny_model
from whet.errors import InvalidModel
from whet.models.load import load_tokenizer, load_unverified, load_with_new_head, max_positions, weight_files
from whet.models.weights import check_finite
from whet.tasks.data import Examples
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import kind_named


def logits(model, batches=None):
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in batches or tiny_batches(seed=2)])


@pytest.mark.parametrize("family", FAMILIES)
def test_models_are_loaded_as_they_were_saved(family, tmp_path, tokenizer):
    model = tiny_model(family)
    loaded = load_unverified(save(model, tokenizer, tmp_path / "model"))
    assert not loaded.training
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_loaded_in_full_precision(dtype, tmp_path, tokenizer):
    save(tiny_model("bert").to(dtype), tokenizer, tmp_path / "model")
    assert {weight.dtype for weight in load_unverified(tmp_path / "model").parameters()} == {torch.float32}


def test_a_base_is_no_classifier(tmp_path, tokenizer):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    with pytest.raises(
        InvalidModel, match=r"must be a text classifier, .*, but .*base holds a BertModel; fine-tune it"
    ):
        load_unverified(tmp_path / "base")


@pytest.mark.parametrize("shards", [1, 2])
def test_pickles_are_never_read_and_the_command_converts_them(shards, tmp_path, tokenizer):
    folder = save(tiny_model("bert"), tokenizer, tmp_path / "it's [mine]")
    (folder / "model.safetensors").unlink()
    weights = list(tiny_model("bert").state_dict().items())
    for shard in range(shards):
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torch.save(dict(weights[shard::shards]), folder / name)
    torch.save([1], folder / "training_args.bin")
    message = ""
    for load in (
        load_unverified,
        lambda source: load_with_new_head(source, kind_named("classification"), ("a", "b", "c"), tokenizer),
    ):
        with pytest.raises(
            InvalidModel, match=r"in safetensors, but .* holds only pytorch_model.*bin, .*; if you trust it"
        ) as refused:
            load(folder)
        message = str(refused.value)
    python, option, code = shlex.split(message.partition("convert it: ")[2])
    assert (python, option) == ("python", "-c")
    exec(code, {})
    [batch] = tiny_batches().batches[:1]
    assert torch.equal(load_unverified(folder)(**batch).logits, tiny_model("bert")(**batch).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_16_bits_are_read_in_fp32(dtype, tmp_path, tokenizer):
    model = tiny_model("bert").to(dtype)
    loaded = load_unverified(save(model, tokenizer, tmp_path / "model"))
    for name, weight in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], weight.float())


def test_code_of_a_checkpoint_is_never_run(tmp_path, tokenizer):
    folder = save(tiny_model("bert"), tokenizer, tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    edit_json(folder / "config.json", auto_map=code)
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Model", "evil.Model"]})
    assert type(load_unverified(folder)).__name__ == "BertForSequenceClassification"
    assert len(load_tokenizer(folder)) == VOCAB
    edit_json(folder / "config.json", model_type="evil")
    with pytest.raises(InvalidModel):
        load_unverified(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "must be a folder that is there, but there is none at .*model; check the name"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json must be a valid JSON file, but .*"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "no_such"}'), "no_such.*; check the name"),
        (lambda folder: (folder / "config.json").unlink(), "must hold config.json, but .*model has none; check"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "must hold model.safetensors, but .* holds no weights",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "must be a whole safetensors file, but"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "must be a whole safetensors file, but"),
    ],
    ids=["gone", "half a config", "unknown", "no config", "no weights", "other bytes", "empty"],
)
def test_what_cannot_be_read_is_refused_in_one_line(spoil, message, tmp_path, tokenizer):
    folder = save(tiny_model("bert"), tokenizer, tmp_path / "model")
    spoil(folder)
    for load in (
        load_unverified,
        lambda source: load_with_new_head(source, kind_named("classification"), ("a", "b", "c"), tokenizer),
    ):
        with pytest.raises(InvalidModel, match=message) as refused:
            load(folder)
        assert "\n" not in str(refused.value)


def test_a_file_is_no_model(tmp_path, tokenizer):
    save(tiny_model("bert"), tokenizer, tmp_path / "model")
    for load in (
        load_unverified,
        lambda source: load_with_new_head(source, kind_named("classification"), ("a",), tokenizer),
    ):
        with pytest.raises(InvalidModel, match=r"but got the file .*config.json; name its folder"):
            load(tmp_path / "model" / "config.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_must_be_finite(value, tmp_path, tokenizer):
    model = tiny_model("bert")
    check_finite(model)
    model.bert.pooler.dense.bias.data[1] = value
    message = r"all weights must be finite, but got NaN or infinity in bert.pooler.dense.bias; train it again"
    with pytest.raises(InvalidModel, match=message):
        check_finite(model)
    save(model, tokenizer, tmp_path / "model")
    with pytest.raises(InvalidModel, match=message):
        load_unverified(tmp_path / "model")
    with pytest.raises(InvalidModel, match=message):
        load_with_new_head(tmp_path / "model", kind_named("classification"), ("a", "b", "c"), tokenizer)


def test_buffers_that_are_no_numbers_may_hold_anything():
    model = tiny_model("bert")
    model.register_buffer("counts", torch.tensor([2**62]))
    check_finite(model)


# tokenizers


def spoilt_tokenizer(tokenizer, folder, **changes):
    """Save a tokenizer without its padding token."""
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path, tokenizer):
    found = load_tokenizer(spoilt_tokenizer(tokenizer, tmp_path, eos_token="[SEP]"))
    assert (found.pad_token, found.pad_token_id) == ("[SEP]", 3)


def test_a_tokenizer_with_neither_is_refused(tmp_path, tokenizer):
    with pytest.raises(InvalidModel, match=r"must have a padding or an end token, but .* has neither; add one"):
        load_tokenizer(spoilt_tokenizer(tokenizer, tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_tokenizer_is_refused(family, tmp_path):
    """Transformers makes an empty tokenizer then, to which every word is unknown."""
    tiny_model(family).save_pretrained(tmp_path / "model")
    with pytest.raises(InvalidModel, match=r"the tokenizer must know words, but|the model must be a folder"):
        load_tokenizer(tmp_path / "model")


def test_a_broken_tokenizer_is_refused(tmp_path, tokenizer):
    save(tiny_model("bert"), tokenizer, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    with pytest.raises(InvalidModel):
        load_tokenizer(tmp_path / "model")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_without_padding_gives_a_batch_the_logits_of_single_examples(family, tmp_path, tokenizer):
    model = tiny_model(family)
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    spoilt_tokenizer(tokenizer, tmp_path, eos_token="[MASK]")
    loaded, words = load_unverified(tmp_path), load_tokenizer(tmp_path)
    examples = Examples(["w5 w6 w7 w8 w9", "w10", "w11 w12"], [0, 1, 0])
    together, alone = (encode(examples, words, max_length=40, batch_size=size) for size in (3, 1))
    assert torch.allclose(logits(loaded, together), logits(loaded, alone), atol=1e-5)


# heads


def test_a_new_head_has_the_names_of_the_classes(tmp_path, tokenizer):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    model = load_with_new_head(tmp_path / "base", kind_named("classification"), ("bad", "so so", "good"), tokenizer)
    assert model.config.id2label == {0: "bad", 1: "so so", 2: "good"}
    assert model.config.label2id == {"bad": 0, "so so": 1, "good": 2}
    assert model.config.problem_type == "single_label_classification"
    assert model.classifier.weight.shape[0] == 3
    base = tiny_model("bert").bert.state_dict()
    assert all(torch.equal(value, base[name]) for name, value in model.bert.state_dict().items())


def test_a_new_head_for_scores_has_one_output(tmp_path, tokenizer):
    save(tiny_model("bert").base_model, tokenizer, tmp_path / "base")
    model = load_with_new_head(tmp_path / "base", kind_named("regression"), None, tokenizer)
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    assert logits(model).shape[1] == 1


def test_a_new_head_pads_as_the_tokenizer_does(tmp_path, tokenizer):
    model = tiny_model("gpt2").base_model
    model.config.pad_token_id = None
    save(model, tokenizer, tmp_path / "base")
    assert (
        load_with_new_head(tmp_path / "base", kind_named("classification"), ("a", "b"), tokenizer).config.pad_token_id
        == PAD
    )


def test_a_head_of_another_size_is_refused(tmp_path, tokenizer):
    save(tiny_model("bert", 3), tokenizer, tmp_path / "three")
    with pytest.raises(InvalidModel, match=r"task's 2 classes, but .*three has num_labels=3; name the base"):
        load_with_new_head(tmp_path / "three", kind_named("classification"), ("a", "b"), tokenizer)


def test_a_head_of_the_same_size_is_trained_on(tmp_path, tokenizer):
    save(classifier(), tokenizer, tmp_path / "model")
    assert torch.equal(
        load_with_new_head(tmp_path / "model", kind_named("classification"), ("x", "y"), tokenizer).classifier.weight,
        classifier().classifier.weight,
    )


# the rest


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_tokens_as_max_positions_can_be_read_and_no_more(family):
    model = tiny_model(family)
    length = max_positions(model)
    assert length == (39 if family == "roberta" else 40)

    def read(count):
        ids = torch.full((1, count), 7)
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    assert read(length).isfinite().all()
    if family != "llama":  # its rotary positions go on
        with pytest.raises((IndexError, RuntimeError)):
            read(length + 1)


def test_models_that_do_not_say_have_no_limit():
    model = nn.Module()
    model.config = PreTrainedConfig()
    assert max_positions(model) is None


def test_weight_files_are_those_of_the_weights(tmp_path, tokenizer):
    save(tiny_model("bert"), tokenizer, tmp_path / "model")
    assert weight_files(tmp_path / "model") == [tmp_path / "model" / "model.safetensors"]


@pytest.mark.parametrize(("family", "longest"), [("mpnet", 38), ("roberta", 39), ("bert", 40), ("xlnet", None)])
def test_positions_that_count_from_the_padding_token_leave_fewer(family, longest):
    """MPNet counts from 1 whatever its padding token; XLNet has no limit, which its configuration calls -1."""
    model = tiny(family)
    assert max_positions(model) == longest
    assert model(torch.full((1, longest or 50), 7)).logits.isfinite().all()


def test_sparse_attention_of_long_texts_is_loaded_as_the_full_one_of_short_texts(tmp_path, tokenizer):
    """transformers would replace it at the first short text, and what was compressed in it with it."""
    plain = tiny("big_bird")
    assert plain.config.attention_type == "block_sparse"
    loaded = load_unverified(save(plain, tokenizer, tmp_path / "model"))
    attentions = [type(module).__name__ for module in loaded.modules() if hasattr(module, "query")]
    assert loaded.config.attention_type == "original_full" and set(attentions) == {"BigBirdSelfAttention"}
    assert torch.equal(logits(loaded), logits(plain))
