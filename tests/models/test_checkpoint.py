"""What a folder holds is decided before its weights are read, and all that is wrong with it is one sentence."""

import json
import os
import shutil
import struct
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertConfig,
    MarianConfig,
    MarianMTModel,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
    T5Model,
)

from folders import classifier, edit_json, save
from helpers import VOCAB, tiny_batches, tiny_model
from whet import api
from whet.api.inspecting import inspect
from whet.errors import InvalidModel, WhetError
from whet.methods.recipe import Recipe
from whet.models.load import class_order, load_tokenizer, load_unverified, load_with_new_head, weight_files
from whet.models.weights import check_run
from whet.searching.search import search
from whet.tasks.base import task_named
from whet.tasks.kinds.base import all_kinds, kind_named
from whet.training.settings import TrainingSettings
from whet.training.students.base import student_from

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer):
    """A tiny BERT with its tokenizer, which nothing changes."""
    return save(classifier(), tokenizer, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def logits(model):
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def refusal(call) -> str:
    """The sentence that a call is refused with."""
    with pytest.raises(WhetError) as refused:
        call()
    sentence = str(refused.value)
    assert "\n" not in sentence and len(sentence) < 1000
    assert " must " in sentence and "; " in sentence and ", but " in sentence
    return sentence


# values in files

WHET = {"quant_method": "whet"}
ENTRY = {"kind": "low_rank", "in_features": 32, "out_features": 32, "rank": 8, "bias": True}
QUERY = "bert.encoder.layer.0.attention.self.query"
BAD_VALUES = [
    *[("hidden_size", value) for value in ("32", 0, None, 32.0, True, 64, 10**20, [32])],
    *[("num_attention_heads", value) for value in (0, -4, None, "4", 3)],
    *[("num_hidden_layers", value) for value in ("two", 0, 1, 3, 10**9)],
    *[("layer_norm_eps", value) for value in (0, None, -1.0)],
    *[("hidden_act", value) for value in (None, "no_such", 5, ["gelu"])],
    *[("pad_token_id", value) for value in (9999, "0", VOCAB)],
    *[("vocab_size", value) for value in (0, -1, 98, 10**12)],
    *[("max_position_embeddings", value) for value in (0, 41, 10**12)],
    *[("id2label", value) for value in (["a", "b"], "ab", {}, {"1": "a", "2": "b"}, {"x": "a"}, {"0": "a"})],
    *[("num_labels", value) for value in (0, "2", 3, 10**12)],
    *[("label2id", value) for value in (["a"], "b", 3)],
    *[("dtype", value) for value in ("float7", 5)],
    *[("model_type", value) for value in (["bert"], "t5", None, 5, "no_such", "gpt2")],
    *[("architectures", value) for value in ("BertForSequenceClassification", [1], {})],
    *[("problem_type", value) for value in ("regression", "32", 5, ["regression"])],
    ("transformers_weights", "../model.safetensors"),
    ("configuration_files", ["/config.9.json"]),
    ("attn_implementation", "someone/kernel"),
    *[("quantization_config", value) for value in ([1], "whet", {}, 5)],
    *[
        ("quantization_config", {"quant_method": name})
        for name in ("bitsandbytes", "torchao", "gptq", "awq", "compressed-tensors", "fp8", "no_such", 5)
    ],
    ("quantization_config", {"load_in_8bit": True}),
    *[("quantization_config", {**WHET, **more}) for more in ({}, {"structure": None}, {"structure": [ENTRY]})],
    *[
        ("quantization_config", {**WHET, "structure": structure})
        for structure in (
            {QUERY: 5},
            {QUERY: {}},
            {QUERY: {**ENTRY, "kind": "no_such"}},
            {QUERY: {**ENTRY, "kind": ["low_rank"]}},
            {QUERY: {"kind": "low_rank"}},
            {QUERY: {**ENTRY, "rank": "8"}},
            {QUERY: {**ENTRY, "rank": -1}},
            {QUERY: {**ENTRY, "rank": 10**12}},
            {QUERY: {**ENTRY, "in_features": 16}},
            {QUERY: {**ENTRY, "more": 1}},
            {QUERY: ENTRY},
            {"bert.no_such": ENTRY},
            {"": ENTRY},
            {"bert": ENTRY},
        )
    ],
]
"""Of config.json, each of which no model of this folder has."""


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=lambda value: json.dumps(value)[:40])
def test_a_bad_value_in_a_configuration_is_one_sentence(name, value, folder):
    edit_json(folder / "config.json", **{name: value})
    refusal(lambda: api.load_model(folder))


def test_plain_loading_says_what_is_wrong_with_a_structure(folder):
    edit_json(folder / "config.json", quantization_config=WHET)
    with pytest.raises(
        WhetError, match=r"structure of compressed layers must be there, but config.json has structure=N"
    ):
        AutoModelForSequenceClassification.from_pretrained(folder)


HUGE = struct.pack("<Q", 2**62) + b"{}"
LONG = struct.pack("<Q", 20 * 2**20) + b" " * (20 * 2**20)
NESTED = struct.pack("<Q", 10**5) + b"[" * 10**5
BAD_TEXTS = [
    *[("config.json", text) for text in ("", "null", "[]", '"x"', "{", "[" * 10**5, '{"a":' * 10**5, "\x00", "1e999")],
    *[("tokenizer.json", text) for text in ("", "[]", "5", "{", '{"model": {"type": "no_such"}}', "[" * 10**5)],
    *[
        ("tokenizer_config.json", text)
        for text in ("", "[]", "{", '{"model_max_length": {}}', '{"fast_tokenizer_files": ["../tokenizer.1.json"]}')
    ],
    *[("model.safetensors", content) for content in (b"", b"x" * 99, HUGE, LONG, NESTED, b"\x80\x04.")],
    ("adapter_config.json", "{}"),
    ("adapter_config.json", "[]"),
]


@pytest.mark.parametrize(("name", "text"), BAD_TEXTS, ids=lambda text: ascii(text)[:20])
def test_a_broken_file_is_one_sentence(name, text, folder):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    refusal(lambda: (api.load_model(folder), load_tokenizer(folder)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_weights_are_one_sentence(share, folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
    refusal(lambda: load_unverified(folder))


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 5}}',
        '{"weight_map": {"a": "missing.safetensors"}}',
        '{"weight_map": {"a": "../w.safetensors"}}',
        '{"weight_map": {"a": "ROOT/w.safetensors"}}',
    ],
)
def test_an_index_names_files_of_its_folder(index, folder, tmp_path):
    shutil.move(folder / "model.safetensors", tmp_path / "w.safetensors")
    (folder / "model.safetensors.index.json").write_text(index.replace("ROOT", str(tmp_path)))
    refusal(lambda: load_unverified(folder))


def test_shards_are_read(saved, tmp_path, tokenizer):
    model = load_unverified(saved)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "shards")
    assert len(weight_files(tmp_path / "shards")) > 2
    assert torch.equal(logits(load_unverified(tmp_path / "shards")), logits(model))


@pytest.mark.parametrize("source", ["x" * 300, "no/such/folder", "/no/such", "no_such_folder", "", "a\0b", "."])
def test_a_name_of_nothing_is_one_sentence(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal(lambda: api.load_model(source))
    refusal(lambda: load_tokenizer(source))


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The addresses that the hub is asked for, of which it answers none."""
    urls: list[str] = []

    def ask(url, **options):
        urls.append(url)
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    return urls


@pytest.mark.parametrize(("source", "times"), [("modl", 1), ("me/modl", 1), ("./modl", 0), ("a/b/modl", 0), ("~/m", 0)])
def test_a_mistyped_folder_asks_the_hub_once_at_most(source, times, asked, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    said = refusal(lambda: api.load_model(source))
    assert len(asked) == times
    assert ("is it model?" in said) == (source in ("modl", "./modl"))
    assert ("the hub cannot be asked: no network" in said) == (times == 1)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.timeout(60)
def test_pipes_and_devices_are_not_read(name, make, folder):
    (folder / name).unlink()
    make(folder / name)
    assert "ordinary files" in refusal(lambda: api.load_model(folder))
    assert "ordinary files" in refusal(lambda: load_tokenizer(folder))


def test_links_may_lead_into_the_hubs_cache_and_nowhere_else(folder, tmp_path):
    revision = tmp_path / "cache" / "snapshots" / "abc"
    for inside in (revision, tmp_path / "linked"):
        inside.mkdir(parents=True)
    (tmp_path / "cache" / "blobs").mkdir()
    for path in folder.iterdir():
        shutil.copy(path, tmp_path / "cache" / "blobs" / path.name)
        (revision / path.name).symlink_to(f"../../blobs/{path.name}")
        (tmp_path / "linked" / path.name).symlink_to(path)
    (tmp_path / "folder").symlink_to(folder)
    whole = logits(load_unverified(folder))
    for source in (revision, tmp_path / "folder"):
        assert torch.equal(logits(load_unverified(source)), whole)
        assert len(load_tokenizer(source)) == VOCAB
    assert "must lie in its folder" in refusal(lambda: load_unverified(tmp_path / "linked"))


# kinds


def test_every_token_has_a_row(folder, tokenizer):
    load_tokenizer(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["w1000"])
    tokenizer.save_pretrained(folder)
    assert "'w1000' as 99" in refusal(lambda: load_tokenizer(folder))


def test_a_model_that_cannot_run_is_one_sentence():
    model = classifier()
    model.config.eos_token_id = [3]
    check_run(model, "here")
    model.bert.encoder.layer[0].attention.self.attention_head_size = -8
    refusal(lambda: check_run(model, "here"))


def bert(auto, **more):
    return auto.from_config(BertConfig(**SIZES, **more))


def qwen(auto):
    return auto.from_config(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, num_labels=3))


T5 = T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, pad_token_id=0, eos_token_id=3)
T5.decoder_start_token_id = 0
HALVES = {
    "vocab_size": VOCAB,
    "d_model": 16,
    **dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16),
    "max_position_embeddings": 40,
}
BART, MARIAN = BartConfig(**HALVES), MarianConfig(**HALVES, pad_token_id=0, decoder_start_token_id=0)
BASES = {
    "a BertForPreTraining": lambda: bert(AutoModelForPreTraining),
    "a BertModel": lambda: tiny_model("bert").base_model,
    "a GPT2Model": lambda: tiny_model("gpt2").base_model,
}
ENCODER_DECODERS = {
    "a T5ForConditionalGeneration": lambda: T5ForConditionalGeneration(T5),
    "a T5Model": lambda: T5Model(T5),
    "a T5EncoderModel": lambda: T5EncoderModel(T5),
    "a T5ForSequenceClassification": lambda: T5ForSequenceClassification(T5),
    "a BartForConditionalGeneration": lambda: BartForConditionalGeneration(BART),
    "a BartForSequenceClassification": lambda: BartForSequenceClassification(BART),
    "a MarianMTModel": lambda: MarianMTModel(MARIAN),
}
LANGUAGE_MODELS = {
    "a BertForMaskedLM": lambda: bert(AutoModelForMaskedLM),
    "a RobertaForMaskedLM": lambda: AutoModelForMaskedLM.from_config(RobertaConfig(**SIZES)),
    "a Qwen3ForCausalLM": lambda: qwen(AutoModelForCausalLM),
}
"""Bases that are models of a kind, too."""
OTHERS = {
    "a BertForTokenClassification": lambda: bert(AutoModelForTokenClassification, num_labels=3),
    "a Qwen3ForTokenClassification": lambda: qwen(AutoModelForTokenClassification),
    "a BertForSequenceClassification of several labels": lambda: bert(
        AutoModelForSequenceClassification, num_labels=3, problem_type="multi_label_classification"
    ),
}
OTHER_KINDS = {"a BertForQuestionAnswering": lambda: bert(AutoModelForQuestionAnswering)}


@pytest.mark.parametrize("name", BASES)
def test_only_models_of_known_kinds_are_compressed(name, tmp_path, tokenizer):
    model = BASES[name]()
    save(model, tokenizer, tmp_path / "model")
    sentence = refusal(lambda: load_unverified(tmp_path / "model"))
    assert f"but {tmp_path / 'model'} holds {name}" in sentence
    assert "whet finetune" in sentence


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders_are_refused_by_every_verb(name, tmp_path, tokenizer):
    folder = save(ENCODER_DECODERS[name](), tokenizer, tmp_path / "model")
    plain = save(tiny_model("bert"), tokenizer, tmp_path / "plain")
    task, student, settings = task_named("agreement"), student_from("layer_subset:top:1"), TrainingSettings()
    verbs = {
        "load": lambda: api.load_model(folder),
        "inspect": lambda: inspect(folder),
        "finetune": lambda: api.finetune(folder, task, tmp_path / "out", settings=settings),
        "distill": lambda: api.distill(folder, student, task, tmp_path / "out", settings=settings),
        "compress": lambda: api.compress(folder, Recipe(()), tmp_path / "out"),
        "measure": lambda: api.measure([folder], task),
        "export": lambda: api.export(folder, ["onnx"], out=tmp_path / "out"),
        "export alone": lambda: api.export(folder, ["onnx"]),
        "search": lambda: search(folder, task, tmp_path / "out"),
        "compare": lambda: api.compare(folder, {"small": Recipe(())}, task, tmp_path / "out"),
        "cascade": lambda: api.cascade([plain, folder], task, tmp_path / "out"),
        "cascade, first": lambda: api.cascade([folder, plain], task, tmp_path / "out"),
        "deploy": lambda: api.deploy(folder, tmp_path / "out"),
    }
    for verb, call in verbs.items():
        sentence = refusal(call)
        assert f"holds {name}, of a family with both; whet does not compress these yet" in sentence, verb
    assert {path.name for path in tmp_path.iterdir()} == {"model", "plain"}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_model_answers_no_other_task(name, tmp_path, tokenizer):
    save(LANGUAGE_MODELS[name](), tokenizer, tmp_path / "model")
    model, task = load_unverified(tmp_path / "model"), task_named("glue/sst2")
    sentence = refusal(lambda: class_order(model, task))
    masked = "masked " if "Masked" in name else ""
    assert f"must be a text classifier, as glue/sst2 asks, but it is a {masked}language model; fine-tune" in sentence


@pytest.mark.parametrize("name", [*BASES, *LANGUAGE_MODELS])
def test_pretrained_models_are_bases(name, tmp_path, tokenizer):
    model = (BASES | LANGUAGE_MODELS)[name]()
    save(model, tokenizer, tmp_path / "model")
    fresh = load_with_new_head(tmp_path / "model", kind_named("classification"), ("a", "b", "c"), tokenizer)
    below, prefix = model.state_dict(), f"{fresh.base_model_prefix}."
    for weight, value in fresh.base_model.state_dict().items():
        original = below.get(weight, below.get(prefix + weight))
        assert torch.equal(value, original) if original is not None else "pooler" in weight, weight


@pytest.mark.parametrize("name", [*OTHERS, *OTHER_KINDS])
def test_heads_for_something_else_are_no_bases(name, tmp_path, tokenizer):
    save((OTHERS | OTHER_KINDS)[name](), tokenizer, tmp_path / "model")
    message = f"must have no head, or one for the task's 3 classes, but .* holds {name}; name the base"
    with pytest.raises(InvalidModel, match=message):
        load_with_new_head(tmp_path / "model", kind_named("classification"), ("a", "b", "c"), tokenizer)


# weights that are left over


def with_weights(folder, change):
    """Change the weights of a folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_weight_without_a_place_is_refused(tmp_path, tokenizer):
    folder = save(qwen(AutoModelForTokenClassification), tokenizer, tmp_path / "model")
    edit_json(folder / "config.json", architectures=["Qwen3ForSequenceClassification"])
    assert "holds score.bias, for which its Qwen3ForSequenceClassification" in refusal(lambda: load_unverified(folder))


def test_layers_are_not_dropped_in_silence(folder, tmp_path, tokenizer):
    base = save(classifier().base_model, tokenizer, tmp_path / "base")
    for source, load in (
        (folder, load_unverified),
        (base, lambda path: load_with_new_head(path, kind_named("classification"), ("a", "b"), tokenizer)),
    ):
        edit_json(source / "config.json", num_hidden_layers=1)
        assert "encoder.layer.1.attention" in refusal(lambda load=load, source=source: load(source))
        edit_json(source / "config.json", num_hidden_layers=3)
        assert "encoder.layer.2.attention" in refusal(lambda load=load, source=source: load(source))


def test_weights_that_no_class_reads_do_no_harm(folder):
    expected = logits(load_unverified(folder))
    more = ("bert.embeddings.position_ids", "cls.predictions.bias", "cls.seq_relationship.weight")
    with_weights(folder, lambda weights: weights.update({name: torch.zeros(2) for name in more}))
    assert torch.equal(logits(load_unverified(folder)), expected)


# adapters


@pytest.fixture
def adapter(saved, tmp_path, tokenizer):
    """A folder with a LoRA adapter, and the logits of its model."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # peft's
        torch.manual_seed(0)
        config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=12, target_modules=["query", "value"])
        model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(saved, dtype=torch.float32), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                torch.nn.init.normal_(weight)
    save(model.eval(), tokenizer, tmp_path / "adapter")
    return tmp_path / "adapter", logits(model)


PEFT_TASKS = {
    "TOKEN_CLS": AutoModelForTokenClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "FEATURE_EXTRACTION": AutoModel,
    "CAUSAL_LM": AutoModelForCausalLM,
}
KNOWN = [task for task, loader in PEFT_TASKS.items() if loader.__name__ in {k.auto_class for k in all_kinds().values()}]


@pytest.mark.parametrize("of_base", ["bare", "own head"])
@pytest.mark.parametrize("task_type", KNOWN)
def test_adapters_of_every_kind_are_merged(task_type, of_base, tmp_path, tokenizer):
    """Each as its own task says, whether the base has the head or the adapter brings it."""
    loader = PEFT_TASKS[task_type]
    labels = {"num_labels": 3} if task_type == "TOKEN_CLS" else {}
    model = tiny_model("gpt2") if task_type == "CAUSAL_LM" else None
    config = model.config if model is not None else BertConfig(**SIZES, **labels)
    torch.manual_seed(0)
    headed = loader.from_config(config).eval()
    bare = of_base == "bare" and task_type != "CAUSAL_LM"
    base = save(headed.base_model if bare else headed, tokenizer, tmp_path / "base")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        targets = ["c_attn"] if task_type == "CAUSAL_LM" else ["query", "value"]
        model = get_peft_model(headed, LoraConfig(task_type=task_type, r=4, target_modules=targets))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save(model.eval(), tokenizer, tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(base))
    said = "embedding" if task_type == "FEATURE_EXTRACTION" else None
    merged = load_unverified(tmp_path / "adapter", kind=said)
    batch = tiny_batches(seed=2).batches[0]
    with torch.inference_mode():
        assert torch.allclose(merged(**batch)[0], model(**batch)[0], atol=1e-5)
    assert type(merged) is type(headed)


def test_an_adapter_of_another_kind_than_its_base_is_refused(adapter, saved):
    folder, _ = adapter
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(saved), task_type="TOKEN_CLS")
    assert "must be of its base's kind" in refusal(lambda: load_unverified(folder))
    edit_json(folder / "adapter_config.json", task_type="SEQ_2_SEQ_LM")
    assert "the task_type of an adapter must be one of SEQ_CLS, TOKEN_CLS" in refusal(lambda: load_unverified(folder))


def test_an_adapter_is_merged_into_its_base(adapter, saved, tmp_path, capsys):
    folder, expected = adapter
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(saved))
    model = load_unverified(folder)
    assert torch.allclose(logits(model), expected, atol=1e-5)
    assert not torch.allclose(logits(load_unverified(saved)), expected, atol=1e-1)
    assert type(model).__name__ == "BertForSequenceClassification" and model.config.id2label == {0: "no", 1: "yes"}
    assert f"the adapter {folder} is merged into its base {saved}\n" in capsys.readouterr().err
    assert [path.parent for path in weight_files(folder)] == [saved, folder]
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert len(load_tokenizer(folder)) == VOCAB


def test_an_adapter_brings_the_head_of_a_base_without_one(adapter, saved, tmp_path, tokenizer):
    folder, expected = adapter
    base = save(classifier().base_model, tokenizer, tmp_path / "base")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    assert torch.allclose(logits(load_unverified(folder)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("base_model_name_or_path", value) for value in (None, 5, "", "no/such/model", "HERE")],
        *[("peft_type", value) for value in (None, "IA3", ["LORA"])],
        *[("task_type", value) for value in ("TOKEN_CLS", 5)],
        *[("target_modules", value) for value in (["no_such"], 5)],
        *[("r", value) for value in (0, 8, "x")],
        *[("lora_alpha", value) for value in ("x", None)],
        ("init_lora_weights", "pissa"),
        ("megatron_config", {"a": 1}),
        ("layer_replication", [[0, 1]]),
    ],
)
def test_a_bad_value_in_an_adapter_is_one_sentence(name, value, adapter, saved):
    folder, _ = adapter
    values = {"base_model_name_or_path": str(saved), name: str(folder) if value == "HERE" else value}
    edit_json(folder / "adapter_config.json", **values)
    refusal(lambda: load_unverified(folder))


def test_an_adapter_is_no_base_and_stays_out_of_models(adapter, saved, folder, tokenizer):
    source, _ = adapter
    assert "must be a whole model" in refusal(
        lambda: load_with_new_head(source, kind_named("classification"), ("a", "b"), tokenizer)
    )
    for path in source.glob("adapter*"):
        shutil.copy(path, folder)
    assert "must hold a model or an adapter" in refusal(lambda: load_unverified(folder))
    assert "must hold a model or an adapter" in refusal(lambda: load_tokenizer(folder))
