"""The verbs on a tiny reranker, from a base without a head."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import whet
from folders import edit_json, save
from helpers import tiny_model
from retrieval_data import write_retrieval
from sentences import sentence_folder
from whet.api.inspecting import inspect
from whet.calibration.resources import Calibration
from whet.models.inference import kind_of_model, predict
from whet.models.load import load_tokenizer
from whet.tasks.encoding import encode

MAX_LENGTH = 24
IDENTITY = "torch.nn.modules.linear.Identity"
FEW = Calibration(examples=16, batch_size=8, max_length=MAX_LENGTH)
SETTINGS = whet.TrainingSettings(epochs=2, learning_rate=3e-3, batch_size=8, max_length=MAX_LENGTH)
QUICK = whet.Benchmark(rounds=6, singles=2, timed=8, max_length=MAX_LENGTH, metrics=("fidelity", "size"))
RECIPES = {
    "low rank": [{"method": "svd", "keep": 0.5}],
    "by its own noise": [{"method": "kfac", "keep": 0.5}],
    "structured": [{"method": "pruning.neurons", "keep": 0.5}],
    "in 8 bits": [{"method": "weight_only", "bits": 8}],
    "recovered": [{"method": "svd", "keep": 0.5}, {"method": "recovery.distillation", "epochs": 1}],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("reranking")
    save(tiny_model("bert").base_model, tokenizer, root / "base")
    write_retrieval(root / "data")
    sentence_folder(root / "embedder", tokenizer)
    whet.make_candidates(root / "embedder", root / "data", root / "candidates", count=6)
    return root


@pytest.fixture(scope="module")
def task(root):
    return whet.load_task("retrieval", data_dir=root / "candidates", kind="reranking")


@pytest.fixture(scope="module")
def dense(root, task):
    curve = whet.finetune(root / "base", task, root / "dense", settings=SETTINGS)
    assert all(math.isfinite(value) for epoch in curve for value in epoch)
    assert curve[1].training_loss < curve[0].training_loss < 2 * math.log(2)
    return root / "dense"


@pytest.fixture(scope="module")
def compressed(root, task, dense):
    for name, steps in RECIPES.items():
        whet.compress(dense, whet.Recipe.from_list(steps), root / name, task=task, calibration=FEW)
    return [root / name for name in RECIPES]


def scores_of(folder: Path, task: whet.Task) -> np.ndarray:
    model = whet.load_model(folder)
    assert kind_of_model(model).name() == "reranking"
    batches = encode(task.splits.dev, load_tokenizer(folder), max_length=MAX_LENGTH, batch_size=8)
    return predict(model, batches).logits


def test_a_fine_tuned_reranker_says_what_it_is(dense):
    config = json.loads((dense / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"] == "torch.nn.modules.activation.Sigmoid"
    assert config.get("problem_type") is None
    assert "text-ranking" in (dense / "README.md").read_text()
    assert inspect(dense).to_dict()


def test_every_family_compresses_and_is_measured(compressed, dense, task):
    trials = whet.measure([dense, *compressed], task, benchmark=QUICK)
    for trial in trials:
        metrics = [one.metric for one in trial.measurements]
        assert metrics[:2] == ["ndcg@10", "mrr@10"] and {"kl", "disk"} <= set(metrics)
        assert all(one.n == 20 for one in trial.measurements[:3]), "queries are resampled, not candidates"
    kl = {trial.name: next(one.value for one in trial.measurements if one.metric == "kl") for trial in trials}
    assert kl["dense"] == 0 and all(kl[name] > 0 for name in RECIPES)


def test_the_same_scores_after_save_and_load(compressed, task):
    for folder in compressed:
        assert np.array_equal(scores_of(folder, task), scores_of(folder, task))
        config = json.loads((folder / "config.json").read_text())
        assert config["sentence_transformers"]["activation_fn"] == "torch.nn.modules.activation.Sigmoid"


def test_a_student_learns_from_a_reranker(root, task, dense):
    curve = whet.distill(
        dense, whet.student_from("layer_subset:evenly_spaced:1"), task, root / "student", settings=SETTINGS
    )
    assert all(math.isfinite(value) for epoch in curve for value in epoch)
    assert len(whet.load_model(root / "student").base_model.encoder.layer) == 1


@pytest.mark.parametrize(
    "entry", [{"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, {}]
)
def test_a_cross_encoder_of_sentence_transformers_is_recognised(tmp_path, tokenizer, task, entry):
    """Versions before 6 write into config.json, later ones files of their own."""
    folder = save(tiny_model("bert", 1), tokenizer, tmp_path / "cross_encoder")
    edit_json(folder / "config.json", **entry)
    if not entry:
        about = {"model_type": "CrossEncoder", "activation_fn": IDENTITY}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(about))
        module = {
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.base.modules.transformer.Transformer",
        }
        (folder / "modules.json").write_text(json.dumps([module]))
    whet.compress(folder, whet.Recipe.from_list(RECIPES["low rank"]), tmp_path / "small", task=task, calibration=FEW)
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"] == IDENTITY
    assert len(scores_of(tmp_path / "small", task))


def test_no_relevance_is_asked_for_to_calibrate(tmp_path, dense):
    rows = [{"query": f"w{5 + i // 4} w8", "text": f"w{9 + i} w7"} for i in range(64)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, options in (("said", {"kind": "reranking"}), ("told", {})):
        task = whet.load_task(train_file=tmp_path / "rows.jsonl", **options)
        whet.compress(dense, whet.Recipe.from_list(RECIPES["by its own noise"]), tmp_path / name, task=task)
    said, told = (whet.load_model(tmp_path / name).state_dict() for name in ("said", "told"))
    assert all(torch.equal(weight, told[name]) for name, weight in said.items())
