"""The verbs on a tiny folder of sentence-transformers, with text that has no labels."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import whet
from folders import classifier, save
from helpers import VOCAB, word_tokenizer
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


SVD = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])


@pytest.fixture
def pairs(texts):
    others = [f"{text} w9" if i % 2 else "w8 w7" for i, text in enumerate(texts["text"])]
    rows = [
        {"text": text, "other": other, "label": len(other)} for text, other in zip(texts["text"], others, strict=True)
    ]
    return whet.load_task(dev_file=pd.DataFrame(rows), text_pair="other", kind="embedding")


def shortened(vectors, dimensions):
    return vectors[:, :dimensions] / np.linalg.norm(vectors[:, :dimensions], axis=1, keepdims=True)


def test_a_compressed_model_keeps_leading_dimensions(folder, task, texts, tmp_path):
    """As sentence-transformers reads them, in PyTorch, in exports, and after a second step."""
    for name, dimensions in (("whole", None), ("small", 8)):
        whet.compress(folder, SVD, tmp_path / name, dimensions=dimensions)
    assert json.loads((tmp_path / "small" / "config_sentence_transformers.json").read_text())["truncate_dim"] == 8
    wanted = shortened(vectors_of(tmp_path / "whole", texts), 8)
    np.testing.assert_allclose(vectors_of(tmp_path / "small", texts), wanted, atol=1e-6)
    whet.export(tmp_path / "small", ["onnxruntime"], out=tmp_path / "out", dimensions=4)
    assert (tmp_path / "out" / "recipe.yaml").read_text() == (tmp_path / "small" / "recipe.yaml").read_text()
    asked = list(texts["text"][:5])
    whole, short = (whet.load(tmp_path / name).predict(asked) for name in ("whole", "out"))
    np.testing.assert_allclose(short, shortened(whole, 4), atol=1e-5)
    verify(tmp_path / "out")


@pytest.mark.parametrize("verb", ["compress", "export"])
def test_dimensions_that_vectors_do_not_have_are_refused(folder, tmp_path, verb):
    def make(model, dimensions, out):
        if verb == "compress":
            whet.compress(model, SVD, out, dimensions=dimensions)
        else:
            whet.export(model, ["onnxruntime"], out=out, dimensions=dimensions)

    with pytest.raises(InvalidParameter, match="1 <= dimensions <= 32 must hold, but got dimensions=33"):
        make(folder, 33, tmp_path / "out")
    save(classifier(), word_tokenizer(), tmp_path / "classifier")
    with pytest.raises(InvalidParameter, match=r"--dimensions must go with a model of sentence emb.*got a text class"):
        make(tmp_path / "classifier", 8, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dimensions_of_an_export_need_a_folder_of_their_own(folder, tmp_path):
    with pytest.raises(InvalidParameter, match=r"dimensions must go with out, .* but got dimensions=8 alone"):
        whet.export(folder, ["onnxruntime"], dimensions=8)


QUICK = {"rounds": 6, "singles": 2, "timed": 4}


def test_vectors_are_measured_as_an_index_keeps_them(folder, pairs, texts, tmp_path):
    """Beside the baseline's as they are; what a model's own folder records is of those alone."""
    whet.compress(folder, SVD, tmp_path / "small")
    benchmark = whet.Benchmark(dimensions=8, vectors="binary", **QUICK)
    trials = whet.measure([folder, tmp_path / "small"], pairs, benchmark=benchmark, out=tmp_path / "kept")
    assert [trial.name for trial in trials] == ["model", "model, 8 × binary", "small, 8 × binary"]
    assert [trial.get("vector_bytes").value for trial in trials] == [128, 1, 1]
    dev = pairs.splits.dev
    vectors = np.stack([whet.load(folder).predict(sides) for sides in (dev.texts, dev.pairs)])
    signs = np.where(vectors[:, :, :8] > 0, 1, -1) / np.sqrt(8)
    wanted = stats.spearmanr(dev.labels, (signs[0] * signs[1]).sum(1)).statistic
    assert trials[1].get("spearman").value == pytest.approx(wanted)
    assert trials[1].conditions["dimensions"] == 8 and trials[1].conditions["vectors"] == "binary"
    cosines = (vectors[:, :, :8] * signs).sum(-1)
    assert trials[1].get("kl").value == pytest.approx(1 - cosines.mean(), abs=1e-5)
    assert (tmp_path / "small" / "measurements.jsonl").read_text() == ""
    assert "small, 8 × binary" in whet.write_report([tmp_path / "kept"]).read_text()


def test_dimensions_that_all_models_have_are_asked_for(folder, pairs):
    with pytest.raises(InvalidParameter, match="1 <= dimensions <= 32 must hold, but got dimensions=64"):
        whet.measure([folder], pairs, benchmark=whet.Benchmark(dimensions=64, **QUICK))


def test_it_is_said_that_vectors_moved(folder, task, texts, tmp_path, capsys):
    whet.compress(folder, SVD, tmp_path / "small", task=task)
    told = capsys.readouterr().err
    held_out = pd.DataFrame({"text": task.splits.validation.texts})
    before, after = (vectors_of(path, held_out) for path in (folder, tmp_path / "small"))
    cosine = (before * after).sum(1).mean()
    assert f"vectors moved: their mean cosine with those of the original is {cosine:.3f} on held-out text" in told
    whet.compress(folder, SVD, tmp_path / "blind")
    assert "vectors moved; make every index of them anew" in capsys.readouterr().err
    save(classifier(), word_tokenizer(), tmp_path / "classifier")
    whet.compress(tmp_path / "classifier", SVD, tmp_path / "other")
    assert "vectors" not in capsys.readouterr().err
