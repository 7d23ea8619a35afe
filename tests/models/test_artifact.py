import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    pipeline,
)
from transformers.utils import logging as transformers_logging

import whet
from folders import LABELS, classifier, edit_json, save
from helpers import REFUSED, VOCAB, tiny_batches, tiny_model, word_tokenizer, words_of
from whet.calibration.resources import Resources
from whet.errors import InvalidArtifact, InvalidModel, OutputNotWritten
from whet.evaluation import records
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.methods.base import all_methods
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.surgery import describe
from whet.tasks.data import TrainingText
from whet.utils.files import digest
from whet.utils.manifests import is_artifact

METHODS = sorted(all_methods())
UNTIED = {"factorization.embedding", "pruning.vocabulary"}
"""Methods that change the word embeddings, and so take none whose weights other modules use."""


def recipe_of(name: str) -> Recipe:
    method = all_methods()[name]
    return Recipe((method(**method.example),))


def everything(model: nn.Module) -> Resources:
    batches = tiny_batches()
    text = TrainingText(words_of(batches), word_tokenizer())
    return Resources(calibration=batches, train=batches, validation=tiny_batches(seed=1), text=text, teacher=model)


def compressed_by(name: str, model: nn.Module) -> nn.Module:
    return recipe_of(name).apply(model, everything(model))


def logits(model: nn.Module) -> torch.Tensor:
    """Of tokens that the model has: with fewer of them, the last stand for others."""
    words = model.config.vocab_size
    with torch.inference_mode():
        batches = [{**batch, "input_ids": batch["input_ids"] % words} for batch in tiny_batches(seed=2)]
        return torch.cat([model(**batch).logits for batch in batches])


@pytest.fixture(scope="session")
def saved(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """One artifact a method; never changed."""
    root = tmp_path_factory.mktemp("artifacts")
    for name in METHODS:
        model = classifier()
        compressed, own = compressed_by(name, model), recipe_of(name).tokenizer(tokenizer, everything(model))
        records.save_model(compressed, own, root / name, recipe=recipe_of(name).to_list(), origin="tiny", seed=3)
    return {name: root / name for name in METHODS}


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of one artifact whose structure changed, to be spoilt."""
    changed = next(path for path in saved.values() if describe(artifact.load_verified(path)))
    return Path(shutil.copytree(changed, tmp_path / "model"))


def test_importing_whet_is_enough_for_plain_transformers(saved):
    assert whet.__all__
    for name, path in saved.items():
        plain = AutoModelForSequenceClassification.from_pretrained(path).eval()
        expected = compressed_by(name, classifier())
        assert torch.equal(logits(plain), logits(expected)), name
        assert describe(plain) == describe(expected)


def test_without_whet_the_load_fails(saved):
    """A warning alone would leave random weights in the place of compressed layers."""
    changed = {name: str(path) for name, path in saved.items() if describe(artifact.load_verified(path))}
    program = """if True:
        import json, sys
        from transformers import AutoModelForSequenceClassification
        found = {}
        for name, path in json.loads(sys.argv[1]).items():
            try:
                AutoModelForSequenceClassification.from_pretrained(path)
                found[name] = "loaded"
            except Exception as error:
                found[name] = type(error).__name__
        assert "whet" not in sys.modules
        print(json.dumps(found))
    """
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(changed)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wanted = {name: "loaded" if all_methods()[name].lossless else "RuntimeError" for name in changed}
    assert json.loads(done.stdout.splitlines()[-1]) == wanted


@pytest.mark.parametrize("name", METHODS)
def test_pipelines_read_an_artifact(saved, name):
    classify = pipeline("text-classification", model=str(saved[name]))
    answer = classify("w5 w6 w7")[0]
    ids = AutoTokenizer.from_pretrained(saved[name])("w5 w6 w7", return_tensors="pt")
    with torch.inference_mode():
        shares = artifact.load_verified(saved[name])(**ids).logits.softmax(-1)[0]
    assert answer["label"] == LABELS[int(shares.argmax())]
    assert answer["score"] == pytest.approx(float(shares.max()), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_manifest_lists_every_file_and_none_is_a_pickle(saved, name):
    manifest = json.loads((saved[name] / "manifest.json").read_text())
    files = {path.name for path in saved[name].iterdir()}
    assert files == set(manifest["files"]) | {"manifest.json"}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "measurements.jsonl"}
    assert not [file for file in files if Path(file).suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    assert (manifest["origin"], manifest["seed"]) == ("tiny", 3)
    assert set(manifest["versions"]) >= {"whet", "torch", "transformers", "python"}
    assert Recipe.read(saved[name] / "recipe.yaml") == recipe_of(name)


def test_a_dense_baseline_is_an_artifact_too(tmp_path, tokenizer):
    model = tiny_model("distilbert")
    records.save_model(model, tokenizer, tmp_path / "dense", recipe=[], origin="tiny", seed=0)
    assert is_artifact(tmp_path / "dense")
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())
    assert torch.equal(logits(artifact.load_verified(tmp_path / "dense")), logits(model))
    assert Recipe.read(tmp_path / "dense" / "recipe.yaml") == Recipe()


def test_other_folders_are_no_artifacts(tmp_path, tokenizer):
    save(tiny_model("bert"), tokenizer, tmp_path / "plain")
    assert not is_artifact(tmp_path / "plain")
    assert not is_artifact(tmp_path / "nowhere")
    assert not is_artifact("hub/name")


def _truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def _relabel(folder: Path) -> None:
    edit_json(folder / "config.json", id2label={"0": "yes", "1": "no"})


def _unknown_layer(folder: Path) -> None:
    _describe(folder, lambda entry: entry | {"kind": "no_such"})
    _renew(folder)


def _half_described_layer(folder: Path) -> None:
    _describe(folder, lambda entry: {"kind": entry["kind"]})
    _renew(folder)


def _describe(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    structure = config["quantization_config"]["structure"]
    first = next(iter(structure))
    structure[first] = change(structure[first])
    (folder / "config.json").write_text(json.dumps(config))


def _renew(folder: Path) -> None:
    """Make the digests right again, as an older or newer whet would have written them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: digest(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


TAMPERINGS = {
    "truncated weights": (_truncate, r"files must match the manifest, but .*model.safetensors was truncated or"),
    "empty weights": (_empty, r"files must match the manifest, but .*model.safetensors was truncated"),
    "a flipped bit": (_flip, r"files must match the manifest, but .*model.safetensors was truncated or altered; copy"),
    "an altered config": (_relabel, r"files must match the manifest, but .*config.json was truncated or altered"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"every file of the manifest must be there, but .* lacks model.safetensors; copy it again",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    "no recipe": (lambda folder: (folder / "recipe.yaml").unlink(), "lacks recipe.yaml"),
    "no measurements": (lambda folder: (folder / "measurements.jsonl").unlink(), "lacks measurements.jsonl"),
    "half a manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"files": {'),
        r"manifest.json must be as whet wrote it, but Invalid JSON: .*; copy it again",
    ),
    "an unknown layer": (_unknown_layer, "a saved layer must be one of .*, but got 'no_such'; update whet"),
    "a half-described layer": (_half_described_layer, "a saved .* layer must be complete, but got {}"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_refused(folder, tampering):
    spoil, message = TAMPERINGS[tampering]
    spoil(folder)
    with pytest.raises(InvalidArtifact, match=message):
        artifact.load_verified(folder)


def test_a_missing_manifest_is_refused(folder):
    (folder / "manifest.json").unlink()
    for read in (artifact.load_verified, artifact.verify, artifact.model_digest):
        with pytest.raises(InvalidArtifact, match=r"must hold a readable manifest.json"):
            read(folder)


def test_weights_of_another_shape_are_no_model(folder, saved):
    """Digests that fit, but weights that do not: whoever made this is not whet."""
    other = tiny_model("bert")
    other.save_pretrained(folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder / "model.safetensors")
    shutil.rmtree(folder / "other")
    _renew(folder)
    with pytest.raises(InvalidModel):
        artifact.load_verified(folder)


def trial(value: float) -> Trial:
    return Trial("model", [], 0, [Measurement.count("parameters", value, "")], None, {"task": "tiny"})


def test_recorded_trials_are_kept_in_order_and_shown(folder):
    before, weights = artifact.model_digest(folder), (folder / "model.safetensors").read_bytes()
    assert "Not yet" in (folder / "README.md").read_text()
    for value in (111, 222):
        records.record(folder, trial(value))
    assert records.trials(folder) == [trial(111), trial(222)]
    card = (folder / "README.md").read_text()
    assert "222" in card and "111" not in card and "Not yet" not in card
    assert artifact.model_digest(folder) == before
    assert (folder / "model.safetensors").read_bytes() == weights
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == {name: digest(folder / name) for name in manifest["files"]}
    assert {path.name for path in folder.iterdir()} == set(manifest["files"]) | {"manifest.json"}
    artifact.load_verified(folder)


def test_the_digest_is_of_the_model(folder, saved):
    before = artifact.model_digest(folder)
    _flip(folder)
    _renew(folder)
    assert artifact.model_digest(folder) != before


def test_a_record_that_was_cut_short_does_not_lose_the_model(folder, monkeypatch):
    written = []

    def write_text(path, text):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_text(text)

    monkeypatch.setattr(artifact, "write_text", write_text)
    with pytest.raises(KeyboardInterrupt):
        records.record(folder, trial(1))
    monkeypatch.undo()
    artifact.load_verified(folder)
    records.record(folder, trial(2))
    assert records.trials(folder)[-1] == trial(2)


def test_an_edited_card_does_not_lose_the_model(folder):
    (folder / "README.md").write_text("mine")
    artifact.load_verified(folder)


def without(key: str) -> str:
    return json.dumps({name: value for name, value in trial(1).to_dict().items() if name != key})


def spoilt(**changes: object) -> str:
    [row] = trial(1).to_dict()["measurements"]
    return json.dumps(trial(1).to_dict() | {"measurements": [row | changes]})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Invalid JSON"),
        ('{"name": "x', "Invalid JSON"),
        ("[]", "should be an object"),
        ("3", "should be an object"),
        ("[" * 100_000, "recursion limit exceeded"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "Invalid JSON"),
        (without("recipe"), "recipe: Field required"),
        (json.dumps(trial(1).to_dict() | {"recipe": ["kfac"]}), "recipe.0: Input should be"),
        (json.dumps(trial(1).to_dict() | {"measurements": {}}), "measurements"),
        (spoilt(value="high"), "measurements.0.value"),
        (spoilt(low=5), "low <= value <= high must hold, but got low=5, value=1, high=1"),
        (spoilt(better="more"), "measurements.0.better"),
    ],
)
def test_unreadable_measurements_are_refused_before_a_benchmark(folder, line, message):
    records.record(folder, trial(1))
    path = folder / "measurements.jsonl"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(
        InvalidArtifact, match=rf"line 2 of .*must be as whet wrote it, but .*{message}.*; remove it, and"
    ):
        records.recordable([folder])
    path.write_text(f"{trial(1).to_json()}\n\n")
    assert records.trials(folder) == [trial(1)]


def test_the_card_says_how_to_load_it(saved):
    for name, path in saved.items():
        card = (path / "README.md").read_text()
        config = json.loads((path / "config.json").read_text())
        assert ("import whet" in card) == ("quantization_config" in config)
        assert f"Recipe: `{name}(" in card or name == "dense"
        assert " tiny, " in card or "made from tiny" in card


@pytest.mark.parametrize("text", ["[" * 100_000, "- {}", "- [kfac]", "kfac", "- {method: 3}"])
def test_an_unreadable_recipe_is_refused_before_a_benchmark(folder, text):
    (folder / "recipe.yaml").write_text(text)
    with pytest.raises(InvalidArtifact, match=r"recipe\.yaml"):
        records.recordable([folder])


def test_a_method_that_is_unknown_here_is_told_by_its_name(folder):
    (folder / "recipe.yaml").write_text("- {method: somebody.elses, strength: 2}")
    records.recordable([folder])
    records.record(folder, trial(1))
    assert "Recipe: `somebody.elses(strength=2)`." in (folder / "README.md").read_text()


def test_extra_files_are_saved_and_listed(tmp_path, tokenizer):
    records.save_model(
        tiny_model("bert"), tokenizer, tmp_path / "x", recipe=[], origin="", seed=0, extras={"a.png": b"1"}
    )
    assert (tmp_path / "x" / "a.png").read_bytes() == b"1"
    assert "a.png" in json.loads((tmp_path / "x" / "manifest.json").read_text())["files"]


def test_precisions_may_share_files_that_are_never_the_same_bytes_twice(folder, tmp_path):
    """What OpenVINO runs in bf16 is what it runs in fp32, and names in it change from one writing to the next."""

    def add(precision: str, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        artifact.add_export(folder, "openvino", precision, [tmp_path / name], {"kl": 0.1})

    add("fp32", "whole.xml", "a")
    add("int8", "small.xml", "b")
    add("bf16", "whole.xml", "c")
    for precision in ("fp32", "int8", "bf16"):
        assert artifact.exported(folder, "openvino", precision).kl == 0.1
    config, manifest = folder / "config.json", json.loads((folder / "manifest.json").read_text())
    config.write_text(config.read_text() + "\n")  # another model from now on
    manifest["files"]["config.json"] = digest(config)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    add("bf16", "whole.xml", "d")
    assert artifact.exported(folder, "openvino", "bf16")
    with pytest.raises(InvalidArtifact, match="must hold an export for openvino in fp32, but it has none"):
        artifact.exported(folder, "openvino")
    with pytest.raises(InvalidArtifact, match="must belong to the weights beside it"):
        artifact.exported(folder, "openvino", "int8")


def test_a_copy_has_one_export_and_says_what_it_is(folder, tmp_path):
    for runtime in ("onnxruntime", "openvino"):
        draft = tmp_path / f"{runtime}.onnx"
        draft.write_bytes(runtime.encode())
        artifact.add_export(folder, runtime, "fp32", [draft], {"kl": 0.1})
    about = {"target": {"runtime": "onnxruntime"}}
    records.copy_model(folder, tmp_path / "new", export=("onnxruntime", "fp32"), about=about, trials=[trial(0.5)])
    artifact.verify(tmp_path / "new")
    assert artifact.model_digest(tmp_path / "new") == artifact.model_digest(folder)
    assert artifact.exported(tmp_path / "new", "onnxruntime").kl == 0.1
    assert not (tmp_path / "new" / "openvino.onnx").exists()
    with pytest.raises(InvalidArtifact, match="must hold an export for openvino"):
        artifact.exported(tmp_path / "new", "openvino")
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert manifest["target"] == about["target"] and list(manifest["exports"]) == ["onnxruntime fp32"]
    assert records.trials(tmp_path / "new") == [trial(0.5)]
    with pytest.raises(InvalidArtifact, match="must hold an export"):
        records.copy_model(folder, tmp_path / "no", export=("onnxruntime", "int8"), about={}, trials=[])
    records.copy_model(folder, tmp_path / "new", export=None, about={}, trials=[], overwrite=True)
    assert not list((tmp_path / "new").glob("*.onnx")) and not records.trials(tmp_path / "new")
    assert not (tmp_path / "no").exists()


def test_a_full_disk_leaves_nothing(tmp_path, tokenizer, monkeypatch):
    def full(self, folder, **others):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    model = tiny_model("bert")
    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(OutputNotWritten, match=r"must be writable to its end, but .*No space left on device; free"):
        records.save_model(model, tokenizer, tmp_path / "x", recipe=[], origin="", seed=0)
    assert not list(tmp_path.iterdir())


def causal(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family == "gpt2":
        config = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=40, pad_token_id=0)
        return GPT2LMHeadModel(config).eval()
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", sorted(set(METHODS) - set(REFUSED) - UNTIED))
def test_tied_weights_stay_tied(family, name, tmp_path, tokenizer):
    compressed = compressed_by(name, causal(family))
    assert compressed.lm_head.weight is compressed.get_input_embeddings().weight
    records.save_model(compressed, tokenizer, tmp_path / "lm", recipe=recipe_of(name).to_list(), origin="tiny", seed=0)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "lm").eval()
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert torch.equal(logits_of_tokens(loaded), logits_of_tokens(compressed))
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in compressed.parameters())


def logits_of_tokens(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tiny_batches(seed=2).batches[0]).logits


def test_loading_and_saving_print_nothing(tmp_path, capsys, monkeypatch):
    """Transformers' own bars fill a log; whether the user wants them elsewhere is the user's choice."""
    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)
    save(classifier(), word_tokenizer(), tmp_path / "given")
    assert "shards" in capsys.readouterr().err
    loaded = artifact.load_with_tokenizer(tmp_path / "given")
    artifact.save_files(*loaded, tmp_path / "saved", about={}, files={})
    artifact.load_any(tmp_path / "saved")
    assert capsys.readouterr().err == ""
    assert transformers_logging.is_progress_bar_enabled()
