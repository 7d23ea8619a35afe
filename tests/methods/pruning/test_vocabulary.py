"""A smaller vocabulary from end to end: the same answers on the text that it comes from, in a plain folder."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import folders
from helpers import FAMILIES, VOCAB, tiny_batches, tiny_model, word_tokenizer, words_of
from whet import Benchmark, Recipe, compress, load_task, measure
from whet.api.exporting import export
from whet.calibration.resources import Calibration, Resources
from whet.errors import InvalidModel, InvalidRecipe, MissingResource, NothingToCompress
from whet.methods.pruning.vocabulary import Vocabulary
from whet.models.embeddings import word_vectors
from whet.models.layers.low_rank_embedding import LowRankEmbedding
from whet.models.layers.masked import MaskedEmbedding
from whet.models.lstm import LstmConfig, LstmForCausalLM
from whet.tasks.data import Examples, TrainingText
from whet.tasks.encoding import encode

STEP = {"method": "vocabulary"}


@pytest.fixture
def task(tmp_path):
    """Text that has about half of the words."""
    paths = [folders.write_rows(tmp_path / f"{name}.csv", 24, seed=seed) for seed, name in enumerate(("train", "dev"))]
    return load_task(train_file=paths[0], dev_file=paths[1])


def compressed(tmp_path, task, *steps, family="bert"):
    folder = folders.save(folders.classifier(family), word_tokenizer(), tmp_path / "whole")
    recipe = Recipe.from_list(steps or [STEP])
    compress(folder, recipe, tmp_path / "less", task=task, calibration=Calibration(batch_size=2))
    return folder, tmp_path / "less"


def answers(folder, examples):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batches = encode(examples, tokenizer, max_length=40, batch_size=8)
    with torch.inference_mode():
        return torch.cat([model.eval()(**batch).logits for batch in batches])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_on_training_text_are_exactly_the_same(family, tmp_path, task):
    """On the part that is held out too, whose words count as well."""
    whole, less = compressed(tmp_path, task, family=family)
    for part in task.splits[:2]:
        assert len(part) and torch.equal(answers(less, part), answers(whole, part))
    assert not torch.equal(answers(less, task.splits.dev), answers(whole, task.splits.dev))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_is_a_plain_and_smaller_model(family, tmp_path, task):
    _, less = compressed(tmp_path, task, family=family)
    config = json.loads((less / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(less)
    words = {word for part in task.splits[:2] for text in part.texts for word in text.split()}
    assert "quantization_config" not in config and "auto_map" not in config
    assert config["vocab_size"] == len(tokenizer) == len(words) + 5 < VOCAB
    assert config["pad_token_id"] == tokenizer.pad_token_id == 0
    assert set(tokenizer.get_vocab()) == words | {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def test_each_model_is_measured_with_its_own_tokenizer_on_the_same_examples(tmp_path, task):
    """On the text that the vocabulary comes from nothing differs."""
    whole, less = compressed(tmp_path, task)
    train = task.splits.train
    rows = [f"{text},{folders.LABELS[label]}" for text, label in zip(train.texts, train.labels, strict=True)]
    (tmp_path / "seen.csv").write_text("\n".join(["text,label", *rows]))
    seen = load_task(train_file=tmp_path / "train.csv", dev_file=tmp_path / "seen.csv")
    benchmark = Benchmark(metrics=("fidelity", "size"), batch_size=4)
    first, second = measure([whole, less], seen, benchmark=benchmark)
    assert second.get("kl").value == second.get("disagreement").value == second.get("accuracy").versus.value == 0
    words = len(AutoTokenizer.from_pretrained(less))
    assert second.get("parameters").value == first.get("parameters").value - 32 * (VOCAB - words)
    _, other = measure([whole, less], task, benchmark=benchmark)
    assert other.get("kl").value > 0


def test_rare_tokens_are_removed_and_the_first_stay(tmp_path, task):
    texts = ["w5 w5 w6", "w5 w7 w98"]
    text = TrainingText(Examples(texts, [0, 1]), word_tokenizer())

    def kept(**parameters):
        return Vocabulary(**parameters)._kept_tokens(text)

    assert kept() == [0, 1, 2, 3, 4, 5, 6, 7, 98]
    assert kept(least_count=2) == [0, 1, 2, 3, 4, 5]
    assert kept(least_count=2, keep_first=10) == [*range(10)]
    assert kept(least_count=0) == [*range(VOCAB)]


@pytest.mark.parametrize("inner", ["embedding", "magnitude"])
def test_a_compressed_table_can_be_compressed_further(inner, tmp_path, task):
    first = {"embedding": {"keep": 0.5}, "magnitude": {"sparsity": 0.5, "embeddings": 0.5}}[inner]
    one = Recipe.from_list([{"method": inner, **first}])
    whole, less = compressed(tmp_path, task, {"method": inner, **first}, STEP, {"method": "weight_only"})
    compress(whole, one, tmp_path / "one", task=task, calibration=Calibration(batch_size=2))
    model = AutoModelForSequenceClassification.from_pretrained(less)
    assert len(word_vectors(model)) == model.config.vocab_size < VOCAB
    compress(less.parent / "one", Recipe.from_list([STEP]), tmp_path / "two", task=task)
    train = task.splits.train
    assert torch.equal(answers(tmp_path / "two", train), answers(tmp_path / "one", train))
    kind = {"embedding": LowRankEmbedding, "magnitude": MaskedEmbedding}[inner]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two").get_input_embeddings()
    assert isinstance(again, kind) and again.tokens == model.config.vocab_size


def test_it_is_exported_and_compressed_further(tmp_path, task):
    _, less = compressed(tmp_path, task)
    assert all(one.largest_difference < 1e-4 for one in export(less, ["onnxruntime", "openvino"]).values())
    recipe = Recipe.from_list([{"method": "recovery.distillation", "epochs": 1}])
    compress(less, recipe, tmp_path / "trained", task=task, calibration=Calibration(batch_size=2))
    assert answers(tmp_path / "trained", task.splits.dev).isfinite().all()


def test_steps_that_read_data_after_it_are_refused_before_any_work():
    with pytest.raises(InvalidRecipe, match=r"recovery.distillation \(TRAINING\) must come before pruning.vocabulary"):
        Recipe.from_list([STEP, {"method": "distillation"}])
    with pytest.raises(
        InvalidRecipe,
        match=r"no step after pruning.vocabulary may read data, .* got quantization.dynamic_int8 with validation; ",
    ):
        Recipe.from_list([STEP, {"method": "half"}, {"method": "dynamic_int8", "max_kl": 0.1}])
    with pytest.raises(InvalidRecipe, match=r"but got pruning.vocabulary with text"):
        Recipe.from_list([STEP, STEP])
    with pytest.raises(MissingResource, match=r"pruning.vocabulary needs text data, but got none; give --task"):
        Recipe.from_list([STEP]).apply(tiny_model("bert"), Resources())


def test_a_padding_token_that_positions_count_from_stays():
    model, tokenizer = tiny_model("roberta"), word_tokenizer()
    model.config.pad_token_id = model.get_input_embeddings().padding_idx = 50
    text = TrainingText(words_of(tiny_batches(count=1)), tokenizer)
    tokenizer.add_special_tokens({"pad_token": "w50"})
    with pytest.raises(InvalidModel, match=r"positions are counted from it, but 50 becomes \d+; .* keep_first=50"):
        Vocabulary().apply(model, Resources(text=text))
    Vocabulary(keep_first=50).apply(model, Resources(text=text))
    assert model.config.pad_token_id == model.get_input_embeddings().padding_idx == 50


def test_token_ids_in_the_configuration_are_updated():
    model = tiny_model("llama")
    model.config.update({"pad_token_id": 9, "bos_token_id": 97, "eos_token_id": [5, 98]})
    text = TrainingText(Examples(["w5 w9", "w98"], [0, 1]), word_tokenizer())
    Vocabulary().apply(model, Resources(text=text))
    config = model.config
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (6, None, [5, 7])
    assert config.vocab_size == 8


def test_models_that_cannot_be_made_smaller_are_refused():
    resources = Resources(text=TrainingText(words_of(tiny_batches()), word_tokenizer()))
    half = Recipe.from_list([{"method": "half"}]).apply(tiny_model("bert"), Resources())
    with pytest.raises(
        NothingToCompress, match=r"must be an ordinary table, but .* has HalfPrecision; use the model before"
    ):
        Vocabulary().apply(half, resources)
    with pytest.raises(NothingToCompress, match=r"must not predict words, but LstmForCausalLM does"):
        Vocabulary().apply(LstmForCausalLM(LstmConfig(vocab_size=VOCAB, hidden_size=8)), resources)
    small = tiny_model("bert")
    small.set_input_embeddings(torch.nn.Embedding(50, 32))
    with pytest.raises(InvalidModel, match=r"must have a row for every token, but got 50 for token 98; give"):
        Vocabulary(least_count=0).apply(small, resources)
