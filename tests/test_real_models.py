"""The real pretrained models beside the checkout go through the whole path; skipped where they are absent.

One method of each way to compress meets one of the models; `make test-all` tries all methods with all models.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import whet
from covering import covering
from helpers import REFUSED
from whet.calibration.resources import Resources
from whet.evaluation import records
from whet.methods.base import Stage, all_methods
from whet.models.load import load_tokenizer, load_with_new_head
from whet.tasks.encoding import encode

pytestmark = pytest.mark.data


@pytest.fixture(scope="session")
def models_dir(data_dir: Path) -> Path:
    return data_dir.parent / "models"


RECIPES = {
    **{
        name: [{"method": name, **method.example, **({"keep": 0.4} if "keep" in method.example else {})}]
        for name, method in all_methods().items()
        if method.stage is Stage.STRUCTURE
    },
    "recovery.distillation": [
        {"method": "svd", "keep": 0.4},
        {"method": "recovery.distillation", "epochs": 1, "share": 0.005},
    ],
}


MODELS = {"all-MiniLM-L6-v2": "bert", "stories260k": "llama"}


def models_for(recipe: str) -> list[str]:
    return [name for name, family in MODELS.items() if family not in REFUSED.get(recipe, ())]


ALL = [(recipe, name) for recipe in RECIPES for name in models_for(recipe)]
FEW = {
    ("factorization.kfac", "stories260k"),
    ("factorization.attention", "all-MiniLM-L6-v2"),
    ("factorization.embedding", "stories260k"),
    ("lossless.first_token", "all-MiniLM-L6-v2"),
    ("pruning.neurons", "stories260k"),
    ("pruning.structure", "all-MiniLM-L6-v2"),
    ("recovery.distillation", "all-MiniLM-L6-v2"),
}


@pytest.mark.parametrize(("recipe", "name"), covering(ALL, FEW.__contains__))
def test_compresses_saves_and_reloads_bit_equal(recipe, name, models_dir, data_dir, tmp_path):
    task = whet.load_task("glue/rte", data_dir=data_dir)
    tokenizer = load_tokenizer(models_dir / name)
    dense = load_with_new_head(models_dir / name, task.kind, task.label_names, tokenizer)
    records.save_model(dense, tokenizer, tmp_path / "dense", recipe=[], origin=name, seed=0)
    steps = whet.Recipe.from_list(RECIPES[recipe])
    calibration = whet.Calibration(examples=16, batch_size=8)
    done = whet.compress(tmp_path / "dense", steps, tmp_path / "small", task=task, calibration=calibration)
    batch = encode(task.splits.validation.take(range(4)), tokenizer, max_length=64, batch_size=4).batches[0]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small").eval()
    with torch.inference_mode():
        assert torch.equal(plain(**batch).logits, done.model(**batch).logits)
    assert done.steps[0].layers > 0
    before, after = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("dense", "small"))
    assert after < before or done.steps[0].method.lossless


def test_a_decoder_keeps_its_tied_head(models_dir, data_dir, tmp_path):
    source = models_dir / "stories260k"
    tokenizer = load_tokenizer(source)
    story = (data_dir / "stories" / "stories.txt").read_text(encoding="utf-8")[:2000]
    batch = dict(tokenizer(story, truncation=True, max_length=128, return_tensors="pt", return_token_type_ids=False))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    calibration = whet.Batches([batch], torch.zeros(1).numpy())
    recipe = whet.Recipe.from_list([{"method": "kfac", "keep": 0.5}])
    compressed = recipe.apply(model, Resources(calibration=calibration))
    records.save_model(compressed, tokenizer, tmp_path / "small", recipe=recipe.to_list(), origin=str(source), seed=0)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    for one in (compressed, plain):
        assert one.get_output_embeddings().weight is one.get_input_embeddings().weight
    with torch.inference_mode():
        assert torch.equal(plain(**batch).logits, compressed(**batch).logits)


def test_vectors_in_8_bits_point_where_those_of_pytorch_do(models_dir, data_dir, tmp_path):
    source = models_dir / "all-MiniLM-L6-v2"
    sentences = whet.load_task("sick-relatedness", data_dir=data_dir, kind="embedding").splits
    texts = list(dict.fromkeys(sentences.dev.texts))[:12]
    task = whet.load_task(train_file=pd.DataFrame({"text": sentences.train.texts[:64]}))
    runtimes = ["onnxruntime", "openvino"]
    calibration = whet.Calibration(examples=32, batch_size=8)
    whet.export(source, runtimes, precisions=["int8"], task=task, calibration=calibration, out=tmp_path / "int8")
    exact = whet.load(source)(texts)
    for runtime in runtimes:
        vectors = whet.load(tmp_path / "int8", runtime=runtime, precision="int8")(texts)
        assert (vectors * exact).sum(1).min() >= 0.97  # 0.987 and more when this was written
