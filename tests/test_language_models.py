"""Decoders and masked models through every verb: same answers after save and load, generation with its cache, ties."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import whet
from folders import save
from helpers import VOCAB
from recurrent import tiny_lstm
from tasks.test_corpus import words
from whet.calibration.resources import prepare_resources
from whet.errors import InvalidParameter
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import predict_logits

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
FAMILIES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, bos_token_id=2, eos_token_id=3, pad_token_id=0)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**{**SIZES, "vocab_size": 300}, num_key_value_heads=2, tie_word_embeddings=False)
    ),
    "lstm": lambda: tiny_lstm(hidden=32),
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZES)),
}
DECODERS = ("gpt2", "llama", "qwen2")
RECIPES = {
    "svd": [{"method": "svd", "keep": 0.5}],
    "kfac": [{"method": "kfac", "keep": 0.5}],
    "neurons": [{"method": "neurons", "keep": 0.5}],
    "weight_only": [{"method": "weight_only", "bits": 8}],
    "recovered": [{"method": "svd", "keep": 0.5}, {"method": "recovery.distillation", "epochs": 1}],
}
CALIBRATION = whet.Calibration(examples=8, batch_size=4, max_length=24)
BENCHMARK = whet.Benchmark(batch_size=8, rounds=6, singles=2, timed=4, max_length=24, metrics=("fidelity",))


def tiny(family: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[family]().eval()


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("text")
    for name, seed in (("train", 0), ("dev", 1)):
        rows = [{"text": words(12, seed=100 * seed + i)} for i in range(60 if name == "train" else 24)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {name: folder / f"{name}.jsonl" for name in ("train", "dev")}


def task_of(text, family: str):
    kind = "masked_language_modeling" if family == "bert" else "language_modeling"
    return whet.load_task(train_file=text["train"], dev_file=text["dev"], kind=kind)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, as a Qwen model has it; it puts nothing before a text."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer, inner.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    names = {"special_tokens": ["<|endoftext|>"], "initial_alphabet": ByteLevel.alphabet()}
    inner.train_from_iterator([words(50)], BpeTrainer(vocab_size=280, show_progress=False, **names))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        family: save(tiny(family), byte_tokenizer() if family == "qwen2" else tokenizer, root / family)
        for family in FAMILIES
    }


def generated(model, *, use_cache: bool = True):
    start = torch.tensor([[2, 7, 30, 11, 52]])
    return model.generate(
        start, attention_mask=torch.ones_like(start), max_new_tokens=20, min_new_tokens=20, do_sample=False,
        use_cache=use_cache,
    )  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_compressed_models_are_the_same_after_save_and_load(family, recipe, folders, text, tmp_path):
    task = task_of(text, family)
    if family == "lstm" and recipe in ("neurons",):
        with pytest.raises(whet.WhetError):
            whet.compress(folders[family], whet.Recipe.from_list(RECIPES[recipe]), tmp_path / "small", task=task)
        return
    steps = whet.Recipe.from_list(RECIPES[recipe])
    whet.compress(folders[family], steps, tmp_path / "small", task=task, calibration=CALIBRATION)
    loaded = whet.load_model(tmp_path / "small")
    model, tokenizer = load_with_tokenizer(folders[family])
    resources = prepare_resources(
        model, tokenizer, task.unlabeled(), CALIBRATION, seed=0, device="cpu", needs=steps.needs
    )
    unsaved = steps.apply(model, resources)
    batch = [{"input_ids": torch.arange(5, 25).reshape(2, 10), "attention_mask": torch.ones(2, 10, dtype=torch.long)}]
    np.testing.assert_array_equal(predict_logits(unsaved, batch), predict_logits(loaded, batch))
    if family in DECODERS:
        assert torch.equal(generated(unsaved), generated(loaded))
        assert torch.equal(generated(loaded), generated(loaded, use_cache=False))
        dense = whet.load_model(folders[family])
        tied = dense.get_output_embeddings().weight is dense.get_input_embeddings().weight
        assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    trials = whet.measure([folders[family], tmp_path / "small"], task, benchmark=BENCHMARK)
    name = "pseudo_perplexity" if family == "bert" else "perplexity"
    assert trials[1].get(name).versus.kind == "ratio" and trials[1].get("kl").value > 0
    assert trials[0].get("kl").value == 0 and trials[0].get(name).n == 24


def test_finetuning_is_refused(folders, text, tmp_path):
    with pytest.raises(InvalidParameter, match=r"whet finetune must have labels to learn, but tabular is text for"):
        whet.finetune(
            folders["gpt2"], task_of(text, "gpt2"), tmp_path / "out", settings=whet.TrainingSettings(epochs=1)
        )


def test_exports_score_texts_and_say_that_they_have_no_cache(folders, tmp_path, capsys):
    whet.export(folders["llama"], ["onnxruntime"], out=tmp_path / "out")
    assert "the export scores texts, without a cache of keys and values" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_in_one_sentence(folders, tmp_path):
    with pytest.raises(whet.InvalidModel, match=r"LstmForCausalLM has an LSTM's steps, .* run it in PyTorch"):
        whet.export(folders["lstm"], ["onnxruntime"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_with_other_tokens_are_not_compared(folders, text):
    with pytest.raises(
        whet.InvalidData, match=r"models must have the same tokens .* other ones of qwen2 than of llama"
    ):
        whet.measure([folders["llama"], folders["qwen2"]], task_of(text, "llama"), benchmark=BENCHMARK)


SHARED = Path(__file__).parents[2] / "shared"


@pytest.mark.skipif(not (SHARED / "models" / "stories260k").is_dir(), reason="needs the public model and its text")
def test_a_real_model_writes_on_as_before_and_knows_its_stories(tmp_path):
    source = SHARED / "models" / "stories260k"
    recipe = whet.Recipe.from_list([{"method": "kfac", "keep": 0.9}])
    task = whet.load_task("stories", data_dir=SHARED / "data")
    calibration = whet.Calibration(examples=8, batch_size=4, max_length=64)
    whet.compress(source, recipe, tmp_path / "small", task=task, calibration=calibration)
    small, plain = whet.load_model(tmp_path / "small"), AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(generated(small), generated(plain)) and torch.equal(
        generated(small), generated(small, use_cache=False)
    )
    assert small.lm_head.weight is small.model.embed_tokens.weight
    dev = [{"text": text[:400]} for (text,) in task.splits.dev.plain()[:4]]
    own = whet.load_task(dev_file=dev, kind="language_modeling")
    dense, other = whet.measure([source, tmp_path / "small"], own, benchmark=BENCHMARK)
    assert 4 < dense.get("perplexity").value < other.get("perplexity").value < 12
