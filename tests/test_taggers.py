"""What `test_kinds_contract.py` does not try with taggers: every method, heads of other tags, text without tags."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import whet
from folders import TAGS, save, tagger, write_tagged
from whet.api import training
from whet.errors import InvalidData, InvalidModel, NothingToCompress
from whet.methods.base import all_methods
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import predict
from whet.models.load import class_order
from whet.tasks.encoding import encode

SETTINGS = whet.TrainingSettings(epochs=6, learning_rate=5e-3, batch_size=8, max_length=40)
QUALITY = whet.Benchmark(batch_size=8, rounds=6, singles=2, timed=4, metrics=("fidelity",))
USELESS = ("lossless.first_token",)
"""Methods that have nothing to do for a head that reads every token."""


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer) -> Path:
    """A trained tagger, the base that it comes from, the same tagger with its tags the other way round, and data."""
    root = tmp_path_factory.mktemp("taggers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save(type(tagger())(tagger().config).base_model, tokenizer, root / "base")  # one that learns fast
    write_tagged(root / "train.conll", 80)
    write_tagged(root / "dev.conll", 20, seed=1)
    save(tagger(), tokenizer, root / "tagger")
    other = tagger(TAGS[::-1])
    for parameter in other.classifier.parameters():
        parameter.data = parameter.data.flip(0)
    other.bert.load_state_dict(tagger().bert.state_dict())
    save(other, tokenizer, root / "swapped")
    return root


@pytest.fixture(scope="module")
def task(root) -> whet.Task:
    return whet.load_task(train_file=root / "train.conll", dev_file=root / "dev.conll")


def answers(folder: Path, task: whet.Task) -> np.ndarray:
    model, tokenizer = load_with_tokenizer(folder)
    batches = encode(task.splits.dev, tokenizer, max_length=40, batch_size=8)
    return predict(model, batches).ordered(class_order(model, task)).logits


def test_a_base_gets_a_head_for_words_and_learns(root, task, tmp_path):
    curve = whet.finetune(root / "base", task, tmp_path / "new", settings=SETTINGS)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]
    assert curve[-1].validation_loss < curve[0].validation_loss
    [trial] = whet.measure([tmp_path / "new"], task, benchmark=QUALITY)
    assert [one.metric for one in trial.measurements[:5]] == [
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "entity_f1_LOC",
        "entity_f1_PER",
    ]
    assert trial.get("entity_f1").n == len(task.splits.dev) and trial.get("entity_f1").value > 0.3


def test_the_order_of_tags_in_a_head_does_not_matter(root, task):
    first, second = whet.measure([root / "tagger", root / "swapped"], task, benchmark=QUALITY)
    assert second.get("kl").value == pytest.approx(0, abs=1e-6) and second.get("disagreement").value == 0
    assert [one.value for one in first.measurements[:5]] == [one.value for one in second.measurements[:5]]
    assert second.measurements[0].versus.p_value == 1


@pytest.mark.parametrize("method", sorted(all_methods()))
def test_methods_make_taggers_that_load_with_the_same_answers(root, task, tmp_path, method):
    recipe = whet.Recipe.from_list([{"method": method, **all_methods()[method].example}])
    if method in USELESS:
        with pytest.raises(NothingToCompress, match="must read the first token of the last block alone"):
            whet.compress(root / "tagger", recipe, tmp_path / "small", task=task)
        return
    made = whet.compress(root / "tagger", recipe, tmp_path / "small", task=task)
    found = answers(tmp_path / "small", task)
    assert np.isfinite(found).all()
    model, tokenizer = made.model, load_with_tokenizer(tmp_path / "small")[1]
    batches = encode(task.splits.dev, tokenizer, max_length=40, batch_size=8)
    assert np.allclose(predict(model, batches).ordered(class_order(model, task)).logits, found, atol=1e-5)


def test_a_teacher_tags_words_without_tags(root, task, tmp_path, monkeypatch):
    more = tmp_path / "more.conll"
    more.write_text("\n\n".join("\n".join(sentence) for sentence in (["w5", "w6"], ["w60", "w30", "w44"])))
    unlabeled = task.more_text(more, text="text")
    seen = []
    monkeypatch.setattr(training, "train", lambda *_, examples, **__: seen.append(examples) or [])
    monkeypatch.setattr(training, "curve_files", lambda *_, **__: {})
    student = whet.student_from("layer_subset:evenly_spaced:1")
    whet.distill(root / "swapped", student, task, tmp_path / "student", settings=SETTINGS, unlabeled=unlabeled)
    [examples] = seen
    model, tokenizer = load_with_tokenizer(root / "swapped")
    decided = predict(model, encode(unlabeled, tokenizer, max_length=40, batch_size=2)).logits.argmax(1).tolist()
    assert examples.texts[-2:] == [("w5", "w6"), ("w60", "w30", "w44")]
    assert [tag for tags in examples.labels[-2:] for tag in tags] == decided


def test_an_export_answers_as_the_model_does(root, task, tmp_path):
    folder = tmp_path / "tagger"
    [agreement] = whet.export(root / "tagger", ["openvino"], task=task, out=folder).values()
    assert agreement.equal_predictions == 1 and agreement.largest_difference < 1e-3
    rows = whet.measure([folder], task, benchmark=replace(QUALITY, runtimes=("pytorch", "openvino")))
    assert rows[1].get("kl").value == pytest.approx(0, abs=1e-6)
    assert rows[1].get("entity_f1").value == rows[0].get("entity_f1").value


def test_calibration_is_blind_to_words_without_an_answer(root, task):
    """Gradients of noise flow from first tokens alone, so that padding and later pieces count nothing."""
    model, tokenizer = load_with_tokenizer(root / "tagger")
    batches = encode(task.splits.dev, tokenizer, max_length=40, batch_size=4)
    alone = encode(task.splits.dev, tokenizer, max_length=40, batch_size=1)
    found = predict(model, batches).logits, predict(model, alone).logits
    assert found[0].shape == (sum(map(len, task.splits.dev.texts)), len(TAGS))
    assert np.allclose(*found, atol=1e-5)


def test_heads_of_other_tags_and_kinds_are_refused_before_work(root, task, tmp_path, tokenizer):
    save(tagger(("O", "B-PER", "I-PER")), tokenizer, tmp_path / "fewer")
    with pytest.raises(InvalidData, match=r"must have the task's classes O, B-LOC, I-LOC, B-PER, .* num_labels=3"):
        whet.measure([tmp_path / "fewer"], task, benchmark=QUALITY)
    with pytest.raises((InvalidData, InvalidModel), match="must"):
        whet.measure([root / "tagger"], whet.load_task("agreement"), benchmark=QUALITY)
