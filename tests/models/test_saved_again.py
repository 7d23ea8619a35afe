"""A loaded model is trained, changed and saved by plain transformers, which knows nothing of compressed layers."""

import copy
import functools
import io
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import whet
from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidArtifact
from whet.methods.base import method_from
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.sixteen_bits import has_sixteen_bits, round_to_sixteen_bits
from whet.models.surgery import describe
from whet.utils.files import digest

STEPS = (
    {"method": "factorization.svd", "keep": 0.5, "include": "*.3.*"},
    {"method": "pruning.magnitude", "sparsity": 0.8, "include": "*.0.*"},
    {"method": "clustering.kmeans", "n_clusters": 8, "include": "*.1.*"},
    {"method": "quantization.weight_only", "bits": 4, "include": "*.2.*"},
    {"method": "quantization.half", "include": "*embeddings*"},
    {"method": "quantization.dynamic_int8", "include": "*.3.*"},
)
"""A layer of every kind that files store in another form."""
KINDS = {"low_rank", "packed", "codebook", "integers", "half"}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model saved by transformers, never changed."""
    recipe = Recipe(tuple(method_from(step) for step in STEPS))
    compressed = recipe.apply(tiny_model("bert", blocks=4), Resources())
    compressed.save_pretrained(folder := tmp_path_factory.mktemp("model"))
    return folder


@pytest.fixture
def loaded(folder) -> nn.Module:
    return AutoModelForSequenceClassification.from_pretrained(folder)


class Rows(Dataset):
    def __init__(self) -> None:
        self.batches = tiny_batches(ragged=False, batch_size=1)

    def __len__(self) -> int:
        return len(self.batches.labels)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        row = {name: value[0] for name, value in self.batches.batches[i].items()}
        return {**row, "labels": torch.tensor(self.batches.labels[i])}


def trainer(model: nn.Module, out: Path, epochs: int) -> Trainer:
    return Trainer(
        model,
        TrainingArguments(
            str(out),
            num_train_epochs=epochs,
            learning_rate=0.01,
            lr_scheduler_type="constant",
            save_strategy="epoch",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Rows(),
    )


def test_it_holds_a_layer_of_every_storage(folder, loaded):
    config = loaded.config.to_dict()["quantization_config"]
    assert {entry["kind"] for entry in config["structure"].values()} == KINDS
    assert not {entry["kind"] for entry in describe(loaded).values()} & (KINDS - {"low_rank"})


def test_what_a_training_changed_is_saved(loaded, folder, tmp_path):
    """Weights that left their 16 bits or their levels are stored as they are."""
    before = logits(loaded)
    run = trainer(loaded, tmp_path / "run", 2)
    run.train()
    run.save_model(str(tmp_path / "saved"))
    trained = logits(loaded.eval())
    assert not torch.equal(trained, before)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again), trained)
    # resumed from the checkpoint of the first epoch, which transformers reads into the running model
    other = AutoModelForSequenceClassification.from_pretrained(folder)
    last = min((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    trainer(other, tmp_path / "other", 2).train(resume_from_checkpoint=str(last))
    torch.testing.assert_close(logits(other.eval()), trained, rtol=0, atol=1e-4)


def test_copies_are_equal(loaded):
    expected = logits(loaded)
    content = io.BytesIO()
    torch.save(loaded, content)
    content.seek(0)
    for other in (copy.deepcopy(loaded), torch.load(content, weights_only=False)):
        assert torch.equal(logits(other), expected)


def test_saving_changes_nothing(loaded, tmp_path):
    loaded.train()
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    loaded.save_pretrained(tmp_path / "a")
    assert loaded.training
    assert before.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in before.items())


def test_adapters_are_saved_alone(loaded, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need peft, an extra of whet")
    loaded.add_adapter(peft.LoraConfig(target_modules=["linear"], init_lora_weights=False))
    loaded.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def artifact_of(folder: Path, out: Path, tokenizer) -> Path:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    artifact.save_files(model, tokenizer, out, about={}, files={})
    return out


@pytest.mark.parametrize("read", [AutoModelForSequenceClassification.from_pretrained, AutoModel.from_pretrained])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_altered_files_are_refused_by_plain_loading_too(folder, tmp_path, tokenizer, read, name):
    own = artifact_of(folder, tmp_path / "own", tokenizer)
    read(own)
    (own / "notes.txt").write_text("mine")
    (own / "README.md").write_text("mine")
    read(own)
    path = own / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(
        InvalidArtifact, match=f"match the manifest, but .*{name} was truncated or altered; copy it aga"
    ):
        read(own)


def test_shards_are_compared_and_none_is_added(folder, tmp_path, tokenizer, monkeypatch):
    saving = functools.partialmethod(PreTrainedModel.save_pretrained, max_shard_size="20KB")
    monkeypatch.setattr(BertForSequenceClassification, "save_pretrained", saving, raising=False)
    own = artifact_of(folder, tmp_path / "own", tokenizer)
    expected = logits(AutoModelForSequenceClassification.from_pretrained(own))
    assert torch.equal(logits(whet.load_model(own)), expected)
    last = max(own.glob("model-*.safetensors"))
    added = last.with_name("model-extra.safetensors")
    shutil.copy(last, added)
    index = own / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(last.name, added.name))
    with pytest.raises(
        InvalidArtifact, match=r"manifest.json does not list model-extra.safetensors; copy it again, or"
    ):
        AutoModelForSequenceClassification.from_pretrained(own)
    added.unlink()
    with pytest.raises(InvalidArtifact, match=r"index.json was truncated or altered; copy it again"):
        AutoModelForSequenceClassification.from_pretrained(own)


def test_a_model_saved_over_another_is_told_from_it(folder, tmp_path, tokenizer):
    own = artifact_of(folder, tmp_path / "own", tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(own)
    model.save_pretrained(own)
    assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(own)), logits(model)), "the same bytes"
    model.classifier.bias.data += 1
    model.save_pretrained(own)
    for read in (AutoModelForSequenceClassification.from_pretrained, whet.load_model):
        with pytest.raises(InvalidArtifact, match=r"remove manifest.json if you saved another model over"):
            read(own)
    (own / "manifest.json").unlink()
    for read in (AutoModelForSequenceClassification.from_pretrained, whet.load_model):
        assert torch.equal(logits(read(own)), logits(model))


def test_whet_reads_every_file_for_its_digest_once(folder, tmp_path, tokenizer, monkeypatch):
    own, seen = artifact_of(folder, tmp_path / "own", tokenizer), []
    monkeypatch.setattr("whet.utils.manifests.digest", lambda path: seen.append(path) or digest(path))
    whet.load_model(own)
    assert seen.count(own / "model.safetensors") == 1
    AutoModelForSequenceClassification.from_pretrained(own)
    assert seen.count(own / "model.safetensors") == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [STEPS, STEPS[:1], STEPS[1:3], STEPS[3:4]], ids=["all", "svd", "pruned", "integers"])
def test_a_checkpoint_of_sixteen_bits_stays_one(tmp_path, tokenizer, monkeypatch, dtype, steps):
    dense = tiny_model("bert", blocks=4).to(dtype)
    dense.save_pretrained(tmp_path / "dense")
    original = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense", dtype=torch.float32)
    recipe = Recipe(tuple(method_from(step) for step in steps))
    compressed = recipe.apply(original, Resources())
    assert all(torch.equal(weight, dense.state_dict()[name].float()) for name, weight in original.state_dict().items())
    artifact.save_files(compressed, tokenizer, tmp_path / "own", about={}, files={})
    size = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("own", "dense")]
    assert size[0] < size[1]
    for read in (AutoModelForSequenceClassification.from_pretrained, whet.load_model):
        again = read(tmp_path / "own")
        assert again.dtype == torch.float32
        assert torch.equal(logits(again), logits(compressed))
    monkeypatch.setattr("whet.methods.recipe.has_sixteen_bits", lambda model: False)
    wide = logits(recipe.apply(original, Resources()))
    assert (logits(compressed) - wide).norm() < 0.01 * wide.norm()


def test_rounding_takes_the_nearer_dtype_and_stays_finite():
    layer = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    layer[0].weight.data = torch.tensor([[1.0009765625, 0.1], [0.2, 0.3]])
    layer[1].weight.data = torch.tensor([[1e6, 1.0], [2.0, 3.0]])
    expected = [layer[0].weight.half().float(), layer[1].weight.bfloat16().float()]
    assert not has_sixteen_bits(layer)
    round_to_sixteen_bits(layer)
    assert all(torch.equal(one.weight, wanted) for one, wanted in zip(layer, expected, strict=True))
    assert has_sixteen_bits(layer)
