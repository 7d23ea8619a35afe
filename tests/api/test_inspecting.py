import json

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForTokenClassification

import whet
from families import tiny
from folders import classifier, save
from helpers import FAMILIES, tiny_model
from sentences import sentence_folder
from whet.api.inspecting import inspect
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter
from whet.evaluation import records, timing
from whet.methods.base import all_methods
from whet.methods.recipe import Recipe
from whet.numerics.low_rank import break_even
from whet.utils.hardware import INSTRUCTION_SETS, Machine, current_machine


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_one_row(family, tmp_path, tokenizer):
    model = tiny_model(family)
    found = inspect(save(model, tokenizer, tmp_path / "model"), batch=(2, 6), rounds=2)
    assert found.batch == (2, 6)
    assert sum(row.parameters for row in found.modules) == sum(weight.numel() for weight in model.parameters())
    assert sum(row.share for row in found.modules) == pytest.approx(1)
    names = dict(model.named_modules())
    for row in found.modules:
        assert type(names[row.name]).__name__ == row.kind
        assert row.milliseconds >= 0 and row.time_share >= 0
    assert any(row.milliseconds > 0 for row in found.modules)


def test_break_evens_cover_every_shape_of_the_blocks(tmp_path, tokenizer):
    found = inspect(save(tiny_model("bert"), tokenizer, tmp_path / "model"), batch=(2, 6), rounds=2)
    assert {row.shape: row.layers for row in found.break_evens} == {"32x32": 8, "64x32": 2, "32x64": 2}
    by_shape = {row.shape: row for row in found.break_evens}
    assert by_shape["64x32"].by_parameters == break_even(torch.zeros(64, 32)) == 21
    assert all(0 <= row.by_time <= row.by_parameters and row.best_speedup > 0 for row in found.break_evens)
    # each shape is spoken of, and so are threads
    assert all(any(row.shape in line for line in found.advice) for row in found.break_evens)
    assert "cores are used" in found.advice[-1]


def test_without_times_nothing_is_waited_for(tmp_path, tokenizer):
    """What else takes times on this machine does not hold it up."""
    with FileLock(timing.LOCK).acquire(timeout=0):
        found = inspect(save(tiny_model("bert"), tokenizer, tmp_path / "model"), untimed=True)
    assert all(row.milliseconds is None and row.time_share is None for row in found.modules)
    assert all(row.by_parameters and row.by_time is None and row.best_speedup is None for row in found.break_evens)
    assert sum(row.share for row in found.modules) == pytest.approx(1)
    assert "low rank saves bytes of 2 layers of 64x32 below rank 21" in found.advice


def test_an_inspection_is_json(tmp_path, tokenizer):
    found = inspect(save(tiny_model("bert"), tokenizer, tmp_path / "model"), batch=(1, 4), rounds=2).to_dict()
    again = json.loads(json.dumps(found))
    assert again["machine"] == current_machine().to_dict()
    assert {row["name"] for row in again["modules"]} >= {"classifier", "bert.pooler.dense"}
    assert again["break_evens"] and again["advice"] and again["batch"] == [1, 4]


def test_a_compressed_model_can_be_inspected(tmp_path, tokenizer):
    method = next(
        method for _, method in sorted(all_methods().items()) if not method.needs and "keep" in method.example
    )
    recipe = Recipe((method(**method.example),))
    compressed = recipe.apply(classifier(), Resources())
    records.save_model(compressed, tokenizer, tmp_path / "small", recipe=recipe.to_list(), origin="tiny", seed=0)
    found = whet.inspect(tmp_path / "small", batch=(1, 4), rounds=2)
    assert sum(row.parameters for row in found.modules) == sum(weight.numel() for weight in compressed.parameters())


def test_longer_sentences_than_the_model_reads_are_cut(tmp_path, tokenizer):
    assert inspect(save(tiny_model("roberta"), tokenizer, tmp_path / "model"), batch=(1, 64), rounds=1).batch == (1, 39)


@pytest.mark.parametrize("batch", [(0, 4), (4, 0), (-1, 4), (10**6, 512)])
def test_batches_that_are_empty_or_absurd_are_refused(batch, tmp_path):
    with pytest.raises(InvalidParameter, match=f"from 1 to 1048576 tokens, but got {batch[0]} sentences of"):
        inspect(tmp_path, batch=batch)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InvalidModel):
        inspect(tmp_path)


def test_the_model_is_left_without_hooks(tmp_path, tokenizer, monkeypatch):
    model = tiny_model("bert")
    monkeypatch.setattr("whet.api.inspecting.load_with_tokenizer", lambda source, kind: (model, tokenizer))
    inspect("x", batch=(1, 4), rounds=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_this_machine_is_described():
    found = current_machine()
    assert isinstance(found, Machine)
    assert found.cpu and found.device == "cpu"
    assert found.threads >= 1 and found.cores >= 1
    assert found.memory_gib > 0
    assert set(found.instruction_sets) <= set(INSTRUCTION_SETS)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_a_system_without_proc_is_described_too(monkeypatch):
    monkeypatch.setattr("whet.utils.hardware._cpu_fields", dict)
    assert current_machine().cpu
    assert current_machine().instruction_sets == ()


@pytest.mark.parametrize(
    ("family", "reads"), [("bert", "the first token"), ("gpt2", "the last token"), ("llama", "the last token")]
)
def test_it_says_what_the_head_reads_and_asks_every_method(family, reads, tmp_path, tokenizer):
    found = inspect(save(tiny_model(family), tokenizer, tmp_path / "model"), batch=(1, 4), rounds=2)
    assert (found.kind, found.reads) == ("classification", reads)
    assert found.methods.keys() == all_methods().keys()
    assert found.methods["factorization.svd"] == found.methods["quantization.weight_only"] == ""
    assert (found.methods["lossless.first_token"] == "") == (family == "bert")


@pytest.mark.parametrize(
    ("pooling", "reads"), [("cls", "the first token"), ("mean", "all tokens"), ("lasttoken", "the last token")]
)
def test_what_an_embedder_reads_follows_from_its_pooling(pooling, reads, tmp_path, tokenizer):
    found = inspect(sentence_folder(tmp_path / "model", tokenizer, pooling=pooling), batch=(1, 4), rounds=2)
    assert (found.kind, found.reads) == ("embedding", reads)
    assert (found.methods["lossless.first_token"] == "") == (pooling == "cls")


def test_methods_that_refuse_say_why_in_a_few_words(tmp_path, tokenizer):
    tagger = AutoModelForTokenClassification.from_config(tiny_model("bert").config)
    found = inspect(save(tagger, tokenizer, tmp_path / "model"), batch=(1, 4), rounds=2)
    assert (found.kind, found.reads) == ("token_classification", "each token by itself")
    assert found.methods["lossless.first_token"] == "the head must read the first token of the last block alone"
    assert found.methods["pruning.neurons"] == ""


def test_it_names_the_family_and_what_no_method_reaches(tmp_path, tokenizer):
    found = inspect(save(tiny("squeezebert"), tokenizer, tmp_path / "model"), batch=(2, 6), rounds=2)
    assert found.family == "squeezebert" and found.blocks.startswith("3 blocks at transformer.encoder.layers with 0")
    assert found.unreached.share > 0.5 and found.unreached.kinds == ("Conv1d",)
    reached = inspect(save(tiny_model("bert"), tokenizer, tmp_path / "bert"), batch=(2, 6), rounds=2).unreached
    assert reached.share < 0.2 and reached.kinds == ()
