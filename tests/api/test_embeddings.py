"""The verbs on a tiny folder of sentence-transformers, with text that has no labels."""

import json

import numpy as np
import pandas as pd
import pytest

import whet
from helpers import VOCAB
from sentences import sentence_folder
from whet.errors import InvalidParameter
from whet.models.artifact import load_with_tokenizer, verify
from whet.models.inference import predict
from whet.models.sentence import read_modules
from whet.runtimes.base import runtime_named
from whet.tasks.encoding import encode
from whet.training.settings import TrainingSettings
from whet.training.students.base import student_from


@pytest.fixture(scope="module")
def texts() -> pd.DataFrame:
    random = np.random.default_rng(0)
    lengths = random.integers(2, 9, size=60)
    return pd.DataFrame({"text": [" ".join(f"w{i}" for i in random.integers(5, VOCAB, n)) for n in lengths]})


@pytest.fixture
def task(texts):
    return whet.load_task(train_file=texts, kind="embedding")


@pytest.fixture
def folder(tmp_path, tokenizer):
    return sentence_folder(tmp_path / "model", tokenizer, settings={"prompts": {"query": "w7 "}})


def vectors_of(folder, texts):
    model, tokenizer = load_with_tokenizer(folder)
    examples = whet.load_task(train_file=texts, kind="embedding").splits.train
    return predict(model, encode(examples, tokenizer, max_length=16, batch_size=8)).logits


RECIPE = [
    {"method": "factorization.kfac", "keep": 0.5},
    {"method": "recovery.distillation", "epochs": 20, "learning_rate": 3e-4},
]


def test_text_alone_compresses_and_recovers(folder, task, texts, tmp_path):
    for name, recipe in (("small", RECIPE[:1]), ("recovered", RECIPE)):
        whet.compress(folder, whet.Recipe.from_list(recipe), tmp_path / name, task=task)
    before, small, recovered = (vectors_of(tmp_path / name, texts) for name in ("model", "small", "recovered"))
    lost = [1 - float((before * after).sum(1).mean()) for after in (small, recovered)]
    assert 0 < lost[1] < lost[0]
    assert read_modules(tmp_path / "recovered") == read_modules(folder)
    whet.compress(
        folder, whet.Recipe.from_list(RECIPE[:1]), tmp_path / "small", task=task, overwrite=True
    )  # its folders of modules are whet's own


def test_a_student_is_distilled_from_text_alone(folder, task, texts, tmp_path):
    curve = whet.distill(
        folder, student_from("layer_subset:top:1"), task, tmp_path / "student", settings=TrainingSettings(epochs=2)
    )
    assert curve[-1].validation_metric > curve[0].validation_metric - 0.05
    assert np.isfinite(curve[-1].validation_loss)
    verify(tmp_path / "student")
    assert len(vectors_of(tmp_path / "student", texts)) == len(task.splits.train)


def test_embedders_are_trained_on_labels_by_sentence_transformers(folder, task, tmp_path):
    with pytest.raises(InvalidParameter, match=r"whet finetune must have labels .* sentence-transformers, then whet"):
        whet.finetune(folder, task, tmp_path / "out", settings=TrainingSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_an_export_holds_pooling_and_normalisation(tmp_path, tokenizer, pooling, texts):
    folder = sentence_folder(tmp_path / "model", tokenizer, pooling=pooling)
    whet.export(folder, ["onnxruntime"], out=tmp_path / "out")
    session = runtime_named("onnxruntime").open(tmp_path / "out", threads=1)
    examples = whet.load_task(train_file=texts, kind="embedding").splits.train
    batches = encode(examples, tokenizer, max_length=16, batch_size=8)
    found = np.concatenate([session(batch)["sentence_embedding"] for batch in batches])
    np.testing.assert_allclose(found, vectors_of(folder, texts), atol=1e-5)
    import onnx

    outputs = [value.name for value in onnx.load(tmp_path / "out" / "model.onnx").graph.output]
    assert outputs == ["sentence_embedding", "last_hidden_state"]  # the second is what sentence-transformers pools
    assert json.loads((tmp_path / "out" / "modules.json").read_text())[1]["path"] == "1_Pooling"


def test_the_card_loads_an_embedder_by_sentence_transformers(folder, task, tmp_path):
    whet.compress(folder, whet.Recipe.from_list(RECIPE[:1]), tmp_path / "small", task=task)
    card = (tmp_path / "small" / "README.md").read_text()
    code = card[card.index("```python") :]
    assert "import whet  # makes the structure known to transformers\nfrom sentence_transformers import Sen" in code
    assert 'model = SentenceTransformer("small")' in code and "pipeline_tag: sentence-similarity" in card
