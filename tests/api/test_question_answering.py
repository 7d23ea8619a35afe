"""The verbs on a tiny question answerer with contexts of several windows, and questions without an answer."""

import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForQuestionAnswering

import whet
from folders import save
from helpers import tiny_model
from whet.api.inspecting import inspect
from whet.calibration.importance import fisher_importance
from whet.calibration.resources import Calibration
from whet.errors import InvalidModel
from whet.models.inference import predict
from whet.models.load import load_tokenizer
from whet.runtimes import base
from whet.runtimes.base import agreement_with, runtime_named
from whet.tasks.encoding import encode

MAX_LENGTH = 24
FEW = Calibration(examples=16, batch_size=8, max_length=MAX_LENGTH)
SETTINGS = whet.TrainingSettings(epochs=2, learning_rate=3e-3, batch_size=8, max_length=MAX_LENGTH)
QUICK = whet.Benchmark(rounds=6, singles=2, timed=8, max_length=MAX_LENGTH, metrics=("fidelity", "size"))
RECIPES = {
    "structured": [{"method": "pruning.neurons", "keep": 0.5}],
    "recovered": [{"method": "svd", "keep": 0.5}, {"method": "recovery.distillation", "epochs": 1}],
}


def write_questions(path: Path, count: int, *, seed: int = 0) -> Path:
    """Write questions, one a line; the answer is the word that the question asks for, and some have none."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        words = [f"w{word}" for word in random.permutation(np.arange(5, 99))[: random.integers(6, 30)]]
        context, answer = " ".join(words), words[random.integers(len(words))]
        start = len(" ".join(words[: words.index(answer)])) + (words[0] != answer)
        answers = [{"text": answer, "answer_start": start}] if i % 5 else []
        rows.append({"id": str(i), "question": answer, "context": context, "answers": answers})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("answers")
    save(tiny_model("bert").base_model, tokenizer, root / "base")
    write_questions(root / "train.jsonl", 60)
    write_questions(root / "dev.jsonl", 30, seed=1)
    return root


@pytest.fixture(scope="module")
def task(root):
    return whet.load_task(
        train_file=root / "train.jsonl", dev_file=root / "dev.jsonl", kind="question_answering", metric="exact_match"
    )


@pytest.fixture(scope="module")
def dense(root, task):
    curve = whet.finetune(root / "base", task, root / "dense", settings=SETTINGS)
    assert all(math.isfinite(value) for epoch in curve for value in epoch)
    return root / "dense"


def logits_of(folder: Path, task: whet.Task) -> np.ndarray:
    model = whet.load_model(folder)
    batches = encode(task.splits.dev, load_tokenizer(folder), max_length=MAX_LENGTH, batch_size=8)
    return predict(model, batches).logits


def test_transformers_reads_a_fine_tuned_answerer(dense):
    model = AutoModelForQuestionAnswering.from_pretrained(dense)
    assert model.config.architectures == ["BertForQuestionAnswering"]
    assert inspect(dense).to_dict()


@pytest.fixture(scope="module")
def compressed(root, task, dense):
    for name, steps in RECIPES.items():
        whet.compress(dense, whet.Recipe.from_list(steps), root / name, task=task, calibration=FEW)
    return [root / name for name in RECIPES]


def test_questions_are_measured_and_not_their_windows(compressed, dense, task):
    trials = whet.measure([dense, *compressed], task, benchmark=QUICK)
    for trial in trials:
        metrics = [one.metric for one in trial.measurements]
        assert metrics[:2] == ["exact_match", "answer_f1"] and {"kl", "disagreement", "disk"} <= set(metrics)
        assert all(one.n == 30 for one in trial.measurements[:3]), "questions are resampled, not windows"
    kl = {trial.name: next(one.value for one in trial.measurements if one.metric == "kl") for trial in trials}
    assert kl["dense"] == 0 and all(kl[name] > 0 for name in RECIPES)


def test_the_same_logits_after_save_and_load(compressed, task):
    for folder in compressed:
        assert np.array_equal(logits_of(folder, task), logits_of(folder, task))
        assert (folder / "README.md").read_text().count("question-answering") >= 1


def test_noise_does_not_depend_on_how_inputs_are_batched(dense, task, tokenizer):
    model = whet.load_model(dense)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "layer" in name]
    one, other = (
        fisher_importance(
            model, encode(task.splits.train, tokenizer, max_length=MAX_LENGTH, batch_size=size), names, seed=0
        )
        for size in (1, 7)
    )
    for name in names:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-8)


PLACES = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8"))


@pytest.fixture(scope="module")
def exported(root, compressed, task):
    folder = root / "structured"
    whet.export(folder, ("onnxruntime", "openvino"), precisions=("fp32", "int8"), task=task, calibration=FEW)
    return folder


def test_an_export_has_the_outputs_that_transformers_names(exported):
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["start_logits", "end_logits"]
    assert [len(output.shape) for output in session.get_outputs()] == [2, 2]


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_exports_give_the_answers_of_the_model(exported, task, place):
    model = whet.load_model(exported)
    batches = encode(task.splits.dev, load_tokenizer(exported), max_length=MAX_LENGTH, batch_size=8)
    own = predict(model, batches)
    runtime, precision = place
    session = runtime_named(runtime).load(model, exported, precision=precision, threads=1)
    other = predict(session, batches)
    assert other.kind is own.kind and other.logits.shape == own.logits.shape
    kl = own.divergences(other)
    assert kl.max() < (1e-6 if precision == "fp32" else 0.1)
    if precision == "fp32":
        assert (own.kind.predictions(own, batches) == own.kind.predictions(other, batches)).all()


@pytest.mark.parametrize("shape", [(1, 9), (2, 9)])
def test_an_export_of_other_weights_does_not_agree(exported, dense, shape, monkeypatch):
    monkeypatch.setattr(base, "SHAPES", (shape,))  # the second has padding, which no answer may be at
    model, session = (whet.load_model(folder) for folder in (dense, exported))
    runtime = runtime_named("onnxruntime")
    other = runtime.load(session, exported, precision="fp32", threads=1)
    with pytest.raises(InvalidModel, match="must give the model's own answers"):
        agreement_with(model, other.session, ["input_ids", "attention_mask"], runtime="onnxruntime")
