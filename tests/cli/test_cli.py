import contextlib
import errno
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, Trainer

from folders import classifier, edit_json, save, tree, write_rows
from helpers import tiny_model
from sentences import sentence_folder
from whet import api
from whet.api import training
from whet.cli.options import label_map_in
from whet.errors import InvalidParameter, OutputNotWritten
from whet.evaluation import records, timing
from whet.methods.base import Stage, all_methods
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.layers.low_rank import LowRank
from whet.report import plots
from whet.utils import distributed
from whet.utils.manifests import is_artifact

PNG = b"\x89PNG\r\n\x1a\n"
OWN = ["--train-file", "train.csv", "--dev-file", "dev.csv"]
NEEDS_NOTHING = next(
    method for _, method in sorted(all_methods().items()) if not method.needs and "keep" in method.example
)
NEEDS_DATA = next(
    method for _, method in sorted(all_methods().items()) if "calibration" in method.needs and "keep" in method.example
)
BLIND = ["--method", NEEDS_NOTHING.name(), "--keep", "0.5"]
DATA = ["--method", NEEDS_DATA.name(), "--keep", "0.5"]
LAST = NEEDS_NOTHING.name().rpartition(".")[2]


# what works


def test_finetune_saves_a_model_with_its_curve(place, run):
    done = run("finetune", "base", "--out", "new", *OWN, "--epochs", "2", "--batch-size", "16")
    assert (done.code, done.err) == (0, "")
    assert "held-out training data" in done.out
    model = AutoModelForSequenceClassification.from_pretrained("new")
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert Path("new/curve.png").read_bytes().startswith(PNG)
    assert Path("new/curve.csv").read_text().startswith("epoch,training_loss,validation_loss,validation_metric\n1.0,")
    assert is_artifact("new")
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


def test_finetune_keeps_the_order_of_a_head_that_the_base_has(place, run):
    """Each row of the head keeps its class, so that a model that is right stays right."""
    said = AutoModelForSequenceClassification.from_pretrained("model")
    tokenizer = AutoTokenizer.from_pretrained("model")
    texts = [line.split(",")[0] for line in Path("train.csv").read_text().splitlines()[1:]]
    with torch.inference_mode():
        logits = torch.cat([said(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        said.classifier.bias -= logits.mean(0)
    said.config.id2label, said.config.label2id = {0: "Yes", 1: "No"}, {"Yes": 0, "No": 1}
    said.save_pretrained("model")
    answers = (logits - logits.mean(0)).argmax(1).tolist()
    rows = [f"{text},{['yes', 'no'][answer]}" for text, answer in zip(texts, answers, strict=True)]
    Path("own.csv").write_text("\n".join(["text,label", *rows]))
    words = ["--train-file", "own.csv", "--epochs", "1", "--learning-rate", "1e-9", "--json"]
    [epoch] = json.loads(run("finetune", "model", "--out", "new", *words).out)
    assert epoch["validation_metric"] == 1
    assert AutoModelForSequenceClassification.from_pretrained("new").config.id2label == {0: "yes", 1: "no"}


def test_finetune_is_the_same_again_and_as_json(place, run):
    words = [*OWN, "--epochs", "1", "--seed", "7", "--json"]
    first, second = (json.loads(run("finetune", "base", "--out", name, *words).out) for name in ("one", "two"))
    assert first == second
    assert list(first[0]) == ["epoch", "training_loss", "validation_loss", "validation_metric"]
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


def test_finetune_by_lora_saves_an_ordinary_model(place, run):
    words = [*OWN, "--epochs", "1", "--lora", "2", "--lora-targets", "*.query", "--learning-rate", "1e-2"]
    done = run("finetune", "base", "--out", "new", *words)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"[\d,]+ of [\d,]+ parameters are trained \(\d+\.\d\d%\)", done.out)
    new, base = (AutoModel.from_pretrained(name).state_dict() for name in ("new", "base"))
    changed = {name for name, weight in new.items() if not torch.equal(weight, base[name])}
    assert {name for name in changed if ".layer." in name} == {
        f"encoder.layer.{i}.attention.self.query.weight" for i in range(2)
    }


def test_finetune_of_a_decoder_without_padding_token(place, run, tokenizer):
    model = classifier("gpt2").base_model
    model.config.pad_token_id = None
    save(model, tokenizer, place / "gpt2")
    _without_padding(place / "gpt2")
    assert run("finetune", "gpt2", "--out", "new", *OWN, "--epochs", "1").code == 0


def test_finetune_cuts_what_the_model_cannot_read(place, run):
    write_rows(place / "train.csv", 40, length=90)
    assert run("finetune", "base", "--out", "new", *OWN, "--epochs", "1").code == 0


@pytest.mark.parametrize("name", sorted(all_methods()))
def test_compress_by_a_method(place, run, name):
    given = [word for key, value in all_methods()[name].example.items() for word in ("--set", f"{key}={value}")]
    done = run("compress", "model", "--out", "new", "--method", name, *given, *OWN, "--json")
    assert (done.code, done.err) == (0, "")
    step = json.loads(done.out)[0]
    assert step["method"]["method"] == name
    before, after = (Path(folder, "model.safetensors").stat().st_size for folder in ("model", "new"))
    assert after < before or all_methods()[name].stage is Stage.TRAINING or all_methods()[name].lossless
    assert artifact.load_verified(Path("new"))


def test_export_says_how_near_it_is_and_the_model_still_loads(place, run):
    done = run("export", "small", "--to", "onnxruntime")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"onnxruntime .* fp32 .* 100% .* \d(\.\d)?e-0\d .* fp32", done.out)
    assert Path("small/model.onnx").is_file() and artifact.load_verified(Path("small"))
    assert re.search(r"^onnxruntime in fp32: model\.onnx in small, 0?\.\d+ MiB$", done.out, re.MULTILINE)
    assert artifact.exported(Path("small"), "onnxruntime").largest_difference < 1e-4


def test_measure_in_other_runtimes(place, run, monkeypatch):
    assert run("export", "small", "--to", "onnxruntime").code == 0
    words = [*OWN, "--rounds", "6", "--json", "--runtime", "pytorch,onnxruntime"]
    done = run("measure", "small", *words)
    assert done.code == 0
    plain, other = json.loads(done.out)
    assert (plain["name"], other["name"]) == ("small", "small (onnxruntime)")
    assert [one["conditions"]["runtime"] for one in (plain, other)] == ["pytorch", "onnxruntime"]
    assert [one["conditions"]["precision"] for one in (plain, other)] == ["fp32", "fp32"]
    kl, disk = ({one["metric"]: one["value"] for one in trial["measurements"]} for trial in (other, plain))
    assert kl["kl"] < 1e-6 and kl["disagreement"] == 0
    assert kl["disk"] == pytest.approx(Path("small/model.onnx").stat().st_size / 2**20) != disk["disk"]
    assert kl["parameters"] == disk["parameters"]
    assert len(records.trials(Path("small"))) == 2


def test_measure_in_every_runtime_and_precision(place, run):
    words = ["--to", "onnxruntime,openvino", "--precision", "fp32,int8", "--max-kl", "0.1", *OWN]
    assert run("export", "small", *words).code == 0
    places = ["--runtime", "pytorch,onnxruntime,openvino", "--precision", "fp32,int8"]
    done = run("measure", "small", *OWN, "--rounds", "6", *places, "--wide")
    assert done.code == 0 and len(re.findall(r"^small.* ×", done.out, re.MULTILINE)) == 5
    assert len(re.findall(r"^small +(ORT|OV) int8 ", done.out, re.MULTILINE)) == 2
    kept = {(one.conditions["runtime"], one.conditions["precision"]) for one in records.trials(Path("small"))}
    both = ("onnxruntime", "openvino")
    assert kept == {("pytorch", "fp32"), *((name, kind) for name in both for kind in ("fp32", "int8"))}


def test_distill_saves_a_student_with_its_curve(place, run):
    words = [*OWN, "--student", "layer_subset:odd", "--epochs", "2", "--batch-size", "16", "--hidden-states", "1"]
    done = run("distill", "model", "--out", "new", *words)
    assert (done.code, done.err) == (0, "")
    assert "student: blocks 0 of 0 to 1 (odd)" in done.out and "held-out training data" in done.out
    model = AutoModelForSequenceClassification.from_pretrained("new")
    assert model.config.num_hidden_layers == 1
    assert model.config.id2label == AutoModelForSequenceClassification.from_pretrained("model").config.id2label
    assert Path("new/curve.png").read_bytes().startswith(PNG)
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


def test_distill_into_an_lstm(place, run):
    words = [*OWN, "--student", "recurrent:bilstm:16", "--epochs", "2", "--learning-rate", "1e-2"]
    done = run("distill", "model", "--out", "new", *words)
    assert (done.code, done.err) == (0, "")
    assert "student: 1 lstm of width 16 in both directions, teacher embeddings of 16" in done.out
    model = AutoModelForSequenceClassification.from_pretrained("new")
    assert model.config.id2label == {0: "no", 1: "yes"}


def test_distill_keeps_the_teachers_predictions_for_more_runs(place, run):
    words = [*OWN, "--student", "layer_subset:odd", "--epochs", "1", "--cache", "kept"]
    for name in ("one", "two"):
        assert run("distill", "model", "--out", name, *words).code == 0
    assert {path.name for path in Path("kept").iterdir()} == {"about.json", "logits.safetensors"}
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


def test_distill_reads_text_without_labels(place, run, monkeypatch):
    """The teacher labels it; what its own columns say beside the text is not read."""
    labels = write_rows(place / "more.csv", 30, seed=5, labels=("x", "y", "z"))
    seen = []
    train = training.train
    monkeypatch.setattr(
        training, "train", lambda *args, **given: seen.append(given["examples"]) or train(*args, **given)
    )
    words = [*OWN, "--student", "layer_subset:odd", "--epochs", "1"]
    assert run("distill", "model", "--out", "plain", *words).code == 0
    assert run("distill", "model", "--out", "more", *words, "--unlabeled", str(labels), "--cache", "kept").code == 0
    assert len(seen[1]) == len(seen[0]) + 30
    teacher, tokenizer = (kind.from_pretrained("model") for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        said = [int(teacher(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in seen[1].texts[-30:]]
    assert list(seen[1].labels[-30:]) == said
    assert seen[1].texts[: len(seen[0])] == list(seen[0].texts)


def test_distill_asks_the_teacher_once_for_text_without_labels(place, run, monkeypatch):
    """Its predictions say the labels too, where they are kept."""
    write_rows(place / "more.csv", 30, seed=5)
    monkeypatch.setattr(training, "teacher_logits", None)
    words = ["--student", "layer_subset:odd", "--epochs", "1", "--unlabeled", "more.csv", "--cache", "kept"]
    assert run("distill", "model", "--out", "new", *OWN, *words).code == 0


def test_no_name_and_no_picture_costs_a_training(place, run, monkeypatch):
    words = [*OWN, "--epochs", "1"]
    done = run("finetune", "base", "--out", "run_$LR_$SEED", *words)
    assert (done.code, done.err) == (0, "")
    with monkeypatch.context() as during:
        during.setattr(plots.Figure, "savefig", None)
        done = run("distill", "run_$LR_$SEED", "--out", "new", "--student", "layer_subset:odd", *words)
    assert done.code == 0 and done.err.startswith(
        "note: the learning curve of new is saved as curve.csv alone; it could not"
    )
    for name in ("run_$LR_$SEED", "new"):
        artifact.load_verified(place / name)
        assert (place / name / "curve.png").exists() == (name != "new")


def test_distill_shows_its_teachers_curve_too(place, run, monkeypatch):
    assert run("finetune", "base", "--out", "tuned", *OWN, "--epochs", "1").code == 0
    drawn = []
    draw = plots.curve_picture
    monkeypatch.setattr(
        plots, "curve_picture", lambda curves, **rest: drawn.append(list(curves)) or draw(curves, **rest)
    )
    assert run("distill", "tuned", "--out", "new", *OWN, "--student", "layer_subset:odd", "--epochs", "1").code == 0
    assert drawn == [["teacher tuned", "new"]]


def test_distill_cuts_what_the_teacher_cannot_read(place, run):
    """The student, which has no positions, could read more."""
    rows = [" ".join(f"w{5 + i % 2}" for i in range(90 + j)) + f",{('no', 'yes')[j % 2]}" for j in range(40)]
    Path("long.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    words = ["--train-file", "long.csv", "--student", "recurrent:lstm:8", "--epochs", "1"]
    assert run("distill", "model", "--out", "new", *words).code == 0


def test_trackers_write_beside_each_model(place, run, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    for name in ("one", "two"):
        assert run("finetune", "base", "--out", name, *OWN, "--epochs", "1", "--report-to", "tensorboard").code == 0
        assert len(list(Path(f"{name}.logs").glob("events.*"))) == 1
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_lora_on_the_factors_of_a_compressed_base(place, run):
    words = [*OWN, "--epochs", "1", "--lora", "2", "--lora-targets", "*.u"]
    done = run("finetune", "small", "--out", "new", *words)
    assert (done.code, done.err) == (0, "")
    assert "parameters are trained" in done.out
    before, after = (AutoModelForSequenceClassification.from_pretrained(name) for name in ("small", "new"))
    factored = [name for name, module in after.named_modules() if isinstance(module, LowRank)]
    assert factored and factored == [name for name, module in before.named_modules() if isinstance(module, LowRank)]
    for name in factored:
        layer, old = (model.get_submodule(name) for model in (after, before))
        assert torch.equal(layer.v.weight, old.v.weight) and not torch.equal(layer.u.weight, old.u.weight)


def test_more_processes_are_for_what_trains_or_calibrates(place, run, monkeypatch):
    monkeypatch.setattr(distributed, "process_count", lambda: 2)
    done = run("measure", "model", *OWN)
    assert done.code == 2
    assert "this must run in one process, but got 2; leave accelerate launch out" in done.err


def test_distill_follows_the_teachers_order_of_classes(place, run):
    """A teacher whose head has its rows and names the other way round gives the same student, the other way round."""
    turned = AutoModelForSequenceClassification.from_pretrained("model")
    head = turned.classifier
    head.weight.data, head.bias.data = head.weight.data.flip(0), head.bias.data.flip(0)
    names = list(turned.config.id2label.values())[::-1]
    turned.config.id2label, turned.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    turned.save_pretrained("turned")
    AutoTokenizer.from_pretrained("model").save_pretrained("turned")
    for teacher in ("model", "turned"):
        words = [*OWN, "--student", "layer_subset:odd", "--epochs", "1", "--learning-rate", "1e-3"]
        assert run("distill", teacher, "--out", f"from {teacher}", *words).code == 0
    heads = [
        AutoModelForSequenceClassification.from_pretrained(f"from {one}").classifier for one in ("model", "turned")
    ]
    torch.testing.assert_close(heads[0].weight, heads[1].weight.flip(0))
    assert not torch.allclose(heads[0].weight, head.weight.flip(0))


def test_distill_by_measurement_is_the_same_again_and_as_json(place, run):
    words = [*OWN, "--student", "layer_subset:influence:1", "--epochs", "1", "--seed", "7", "--json"]
    first, second = (json.loads(run("distill", "model", "--out", name, *words).out) for name in ("one", "two"))
    assert first == second
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


@pytest.mark.parametrize("words", [["finetune", "base", "--epochs", "1"], ["compress", "model", "--keep", "0.5"]])
def test_without_dev_data_the_outcome_is_the_same(place, run, words):
    for out, own in (("one", OWN), ("two", OWN[:2])):
        done = run(*words, "--out", out, *own)
        assert (done.code, done.err) == (0, "")
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


@pytest.fixture
def asked(monkeypatch) -> list[Recipe]:
    """The recipes that were to be applied, of which none is."""
    recipes: list[Recipe] = []

    def note(model, recipe, out, **others):
        recipes.append(recipe)
        return api.Compressed(torch.nn.Identity(), [])

    monkeypatch.setattr(api, "compress", note)
    verb = importlib.import_module("whet.cli.verbs.compress")  # (the package has the function under this name)
    monkeypatch.setattr(verb, "weights_in_mib", lambda source: "1")
    return recipes


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["--keep", "0.4"], {"method": "kfac", "keep": 0.4}),
        (["--speedup", "2"], {"method": "structure", "speedup": 2.0}),
        (["--keep-time", "0.25"], {"method": "structure", "speedup": 4.0}),
        (["--keep-time", "0.5", "--method", "heads"], {"method": "heads", "speedup": 2.0}),
        (["--speedup", "2", "--method", LAST], {"method": LAST, "allocation": "by_time", "speedup": 2.0}),
        (
            ["--speedup", "2", "--method", "kfac", "--set", "allocation=by_loss"],
            {"method": "kfac", "allocation": "by_loss", "speedup": 2.0},
        ),
        (
            ["--method", LAST, "--set", "allocation=ranks", "--set", 'ranks={"*.query": 3, "*.a=b": 0.5}'],
            {"method": LAST, "allocation": "ranks", "ranks": {"*.query": 3, "*.a=b": 0.5}},
        ),
    ],
)
def test_options_make_the_recipe(place, run, asked, words, step):
    done = run("compress", "model", "--out", "new", *words)
    assert (done.code, done.err) == (0, "")
    assert asked == [Recipe.from_list([step])]


def test_compress_by_a_plan_of_ranks(place, run):
    plan = ["--set", "allocation=ranks", "--set", 'ranks={"*.query": 3}']
    done = run("compress", "model", "--out", "new", *BLIND[:2], *plan)
    assert (done.code, done.err) == (0, "")
    assert "2 layers changed" in done.out
    model = artifact.load_verified(Path("new"))
    assert {layer.rank for layer in model.modules() if isinstance(layer, LowRank)} == {3}
    assert Recipe.read(Path("new/recipe.yaml")).methods[0].ranks == {"*.query": 3}


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_compress_by_a_recipe(place, run, kind):
    recipe = Recipe((NEEDS_NOTHING(keep=0.5),))
    text = recipe.to_yaml() if kind == "yaml" else json.dumps(recipe.to_list())
    Path(f"recipe.{kind}").write_text(text)
    done = run("compress", "model", "--out", "new", "--recipe", f"recipe.{kind}")
    assert (done.code, done.err) == (0, "")
    assert "layers changed" in done.out and "saved to new" in done.out
    assert Recipe.read(Path("new/recipe.yaml")) == recipe


def test_compress_twice_gives_the_same_and_needs_overwrite(place, run):
    words, others = ["compress", "model", "--out", "new", *DATA, *OWN], _names(place)
    assert run(*words).code == 0
    first = tree(place / "new")
    refused = run(*words)
    assert refused.code == 2
    assert refused.err == (
        "OutputExists: the output folder must be new or empty, but new holds files; name another or give --overwrite\n"
    )
    assert tree(place / "new") == first
    Path("new/mine.txt").touch()
    assert "may be replaced, but new holds files of others: mine.txt; name" in run(*words, "--overwrite").err
    Path("new/mine.txt").unlink()
    assert run(*words, "--overwrite").code == 0
    assert tree(place / "new") == first
    assert _names(place) == others | {"new"}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _hidden(folder: Path) -> set[str]:
    return {name for name in _names(folder) if name.startswith(".")}


def test_names_with_brackets_are_shown_as_they_are(place, run, no_memory):
    done = run("compress", "model", "--out", "new[/x]", *BLIND, "--set", "include=*[01]*")
    assert (done.code, done.err) == (0, "")
    assert "include=*[01]*" in done.out and "saved to new[/x]" in done.out
    (place / "new[" / "x]").rename(place / "new[b]")
    done = run("measure", "new[b]", *OWN, "--rounds", "6")
    assert (done.code, done.err) == (0, "")
    assert "new[b]" in done.out


def test_compress_of_a_decoder_without_padding_token(place, run, no_memory, tokenizer):
    model = classifier("gpt2")
    model.config.pad_token_id = None
    save(model, tokenizer, place / "gpt2")
    _without_padding(place / "gpt2")
    assert run("compress", "gpt2", "--out", "new", *DATA, *OWN).code == 0
    assert run("measure", "gpt2", "new", *OWN, "--rounds", "6").code == 0
    assert run("inspect", "gpt2", "--batch-size", "2", "--length", "4").code == 0


def _without_padding(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "[SEP]"}))


def test_measure_shows_a_table_writes_a_picture_and_keeps_the_row(place, run, no_memory):
    done = run("measure", "model", "small", *OWN, "--rounds", "6", "--picture", "plot.png")
    assert (done.code, done.err) == (0, "")
    for word in ("model", "small", "accuracy", "one text,", "throughput,", "24 dev examples", "--wide"):
        assert word in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert Path("plot.png").read_bytes().startswith(PNG)
    assert len(records.trials(Path("small"))) == 1
    assert run("measure", "model", "small", *OWN, "--rounds", "6").code == 0
    assert len(records.trials(Path("small"))) == 2
    artifact.load_verified(Path("small"))


def test_measure_keeps_all_rows_for_the_report(place, run, no_memory):
    """Those of a model from elsewhere too, which has no manifest to keep them."""
    words = ["measure", "model", "small", *OWN, "--rounds", "6", "--out", "measured"]
    assert run(*words).code == 0
    kept = records.trials(Path("measured"))
    assert [trial.name for trial in kept] == ["model", "small"]
    assert all(trial.conditions["baseline"] == "model" and trial.conditions["measured"] for trial in kept)
    assert run(*words).code == 0 and len(records.trials(Path("measured"))) == 4  # it adds
    assert run(*words, "--overwrite").code == 0 and len(records.trials(Path("measured"))) == 2
    done = run("report", "measured", "small", "--out", "shown", "--only", "threads=1")
    assert (done.code, done.err) == (0, "")
    *won, last = done.out.splitlines()
    assert last == "see shown/report.html"
    page = Path("shown/report.html").read_text()
    assert "Size of each layer" in page
    assert Path("shown/report.png").read_bytes().startswith(PNG)
    told = json.loads(run("report", "measured", "small", "--out", "shown", "--only", "threads=1", "--json").out)
    assert told["headline"].split() == " ".join(won).split() and told["page"] == "shown/report.html"
    assert [row["name"] for row in told["rows"]] == ["model", "small"] and told["conditions"]["threads"] == "1"
    assert run("report", "measured", "--out", "shown", "--max-drop", "0").code == 2
    assert "| small |" in Path("shown/report.md").read_text()


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_figures_that_cannot_be_kept_are_shown_and_the_others_are_kept(place, run, no_memory, monkeypatch, words):
    def full(folder, trial):
        raise OutputNotWritten(f"{folder} must be writable to its end, but No space left; free some space")

    monkeypatch.setattr(records, "record", full)
    done = run("measure", "model", "small", *OWN, "--rounds", "6", "--out", "kept", "--picture", "plot.png", *words)
    assert done.code == 2 and "small" in done.out and "accuracy" in done.out
    assert done.err == (
        "FiguresNotKept: small must be writable to its end, but No space left; free some space (what was measured is "
        "not lost: it is printed, or in `trials` of this error)\n"
    )
    assert [trial.name for trial in records.trials(Path("kept"))] == ["model", "small"]


def test_compare_makes_measures_and_reports_in_one_command(place, run, no_memory):
    """A recipe that fails is told below the table, and by the exit code."""
    Path("hopeless.yaml").write_text("- method: svd\n  keep: 0.5\n  include: nothing.of.this.name\n")
    words = ["compare", "model", "--out", "out", *OWN, "--rounds", "6", *DATA]
    done = run(*words, "--recipe", "hopeless.yaml")
    assert (done.code, done.err) == (2, "")
    assert re.search(rf"{NEEDS_DATA.name().rpartition('.')[2]}-0.5: made in", done.out)
    assert re.search(r"(?s)hopeless: not in the table: .*nothing\.of\.this\.name.*see out/report\.html", done.out)
    again = run(*words, "--json")
    found = json.loads(again.out)
    assert (again.code, found["failures"]) == (0, {})
    assert [trial["name"] for trial in found["trials"]] == ["model", f"{NEEDS_DATA.name().rpartition('.')[2]}-0.5"]


def test_measure_as_json(place, run, no_memory):
    found = json.loads(run("measure", "model", *OWN, "--rounds", "6", "--json").out)
    assert [trial["name"] for trial in found] == ["model"]
    assert {row["metric"] for row in found[0]["measurements"]} >= {"accuracy", "kl", "throughput", "parameters"}


def test_inspect(place, run):
    words = ["inspect", "small", "--batch-size", "2"]
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert "2 sentences of 40 tokens" in done.out, "the model cannot read the 64 that were asked for"
    assert json.loads(run(*words, "--json").out)["modules"]


def test_times_may_be_left_out(place, run, no_memory, monkeypatch):
    """Whatever would take one fails."""
    monkeypatch.setattr(timing, "_time_rounds", None)
    done = run("inspect", "small", "--untimed")
    assert (done.code, done.err) == (0, "") and " ms" not in done.out and "below rank" in done.out
    done = run("measure", "model", "small", *OWN, "--untimed")
    assert (done.code, done.err) == (0, "")
    assert "accuracy" in done.out and "one text" not in done.out and "faster" not in done.out
    done = run("compare", "model", "--out", "out", *OWN, "--untimed", *BLIND, "--json")
    measured = {row["metric"] for trial in json.loads(done.out)["trials"] for row in trial["measurements"]}
    assert done.code == 0 and measured >= {"accuracy", "kl", "disk"} and not measured & {"throughput", "latency_median"}


def test_methods(run):
    done = run("methods")
    assert (done.code, done.err) == (0, "")
    found = json.loads(run("methods", "--json").out)
    assert set(found) == set(all_methods())
    for name, method in found.items():
        assert name in done.out and method["source"] in done.out
        assert {row["name"] for row in method["parameters"]} >= set(all_methods()[name].example)


def test_methods_by_name(run):
    done = run("methods", LAST, "--json")
    assert (done.code, list(json.loads(done.out))) == (0, [NEEDS_NOTHING.name()])
    refused = run("methods", f"{LAST}x")
    assert refused.code == 2 and f"did you mean {LAST}" in refused.err


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ([], "--dev-file DEV_FILE"),
        (["--train-file", "train.csv"], "--train-file train.csv --dev-file DEV_FILE"),
        ([*OWN, "--metric", "f1"], "--train-file train.csv --dev-file dev.csv --metric f1"),
        (["--task", "agreement"], "--task agreement"),
        (["--task", "agreement", "--max-length", "64"], "--task agreement --max-length 64"),
    ],
)
def test_the_hint_has_the_users_own_data(place, run, asked, given, hint):
    (place / "model").rename("the model")
    done = run("compress", "the model", "--out", "new", *BLIND, *given)
    assert done.out == f"saved to new: weights of 1 MiB instead of 1\nmeasure it: whet measure 'the model' new {hint}\n"


def test_the_hint_asks_for_pairs_where_the_model_is_an_embedder(place, run, tokenizer):
    sentence_folder(place / "embedder", tokenizer)
    done = run("compress", "embedder", "--out", "new", *BLIND, "--train-file", "train.csv")
    assert done.out.endswith("new --train-file train.csv --text-pair SECOND_TEXT --label SCORE --dev-file DEV_FILE\n")


def test_version(run):
    assert run("--version") == (0, f"whet {importlib.metadata.version('whet')}\n", "")


def test_what_may_be_given_twice(place, run, asked):
    several = ["--set", "include=*.0.*", "--set", "keep=0.5"]
    assert run("compress", "model", "--out", "new", *BLIND[:2], *several, "--overwrite", "--overwrite").code == 0
    assert asked == [Recipe((NEEDS_NOTHING(keep=0.5, include="*.0.*"),))]


@pytest.mark.parametrize("words", [["--help"], ["compress", "--help"]])
def test_help_is_no_error(run, words):
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert "Usage" in done.out


# what is refused


def _weights(place: Path, value: float) -> None:
    model = tiny_model("bert", 2)
    model.bert.encoder.layer[1].output.dense.weight.data[0, 0] = value
    model.save_pretrained(place / "model")


def _regression(place: Path) -> None:
    model = tiny_model("bert", 1)
    model.config.problem_type = "regression"
    model.save_pretrained(place / "model")


def _no_tokenizer(place: Path) -> None:
    for path in (place / "model").glob("tokenizer*"):
        path.unlink()


def _no_padding_no_end(place: Path) -> None:
    config = json.loads((place / "model" / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (place / "model" / "tokenizer_config.json").write_text(json.dumps(config))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _rows(name: str, content: bytes):
    return lambda place: (place / name).write_bytes(content)


def _pickle(place: Path) -> None:
    (place / "model" / "model.safetensors").unlink()
    torch.save(tiny_model("bert", 2).state_dict(), place / "model" / "pytorch_model.bin")


def _recipe(text: str):
    return lambda place: (place / "r.yaml").write_text(text)


def nothing(place: Path) -> None:
    pass


COMPRESS = ["compress", "model", "--out", "new"]
BY_RECIPE = [*COMPRESS, "--recipe", "r.yaml"]
FINETUNE = ["finetune", "base", "--out", "new", *OWN, "--epochs", "1"]
DISTILL = ["distill", "model", "--out", "new", *OWN, "--epochs", "1", "--student"]
MEASURE = ["measure", "model", *OWN]


def _inside(name):
    """Put a file into a copy of an artifact."""

    def spoil(place):
        shutil.copytree(place / "small", place / "inside")
        shutil.copy(place / name, place / "inside")

    return spoil


BAD = {
    # words that whet does not know
    "no command": (nothing, [], r"the command line must be one that whet knows, but got: no command; see whet --help"),
    "an unknown command": (
        nothing,
        ["squash"],
        r'got: unknown command "squash"\. Available commands: .*[a-z], \.\.\.; see whet --help',
    ),
    "an unknown option": (nothing, ["compress", "--nope"], r"got: unknown option: --nope; see whet compress --help"),
    "no model": (nothing, ["compress"], r"got: nothing for MODEL; see whet compress --help"),
    "no output": (nothing, ["compress", "model"], r"got: nothing for --out; see whet compress --help"),
    "an extra word": (nothing, ["demo", "x"], r"got: words that belong to no option: x; see whet demo --help"),
    "a word for a number": (
        nothing,
        [*COMPRESS, *BLIND[:3], "abc"],
        r'invalid value for --keep: unable to convert "abc" into float',
    ),
    "an option without value": (nothing, [*COMPRESS, "--method"], r"got: nothing for --method"),
    "a negative seed": (
        nothing,
        [*COMPRESS, *BLIND, "--seed", "-1"],
        r"0 <= seed < 4294967296 must hold, but got seed=-1",
    ),
    "a huge seed": (nothing, [*FINETUNE, "--seed", str(2**32)], r"must hold, but got seed=4294967296"),
    **{
        f"{option} twice": (
            nothing,
            [*COMPRESS, *BLIND, *OWN, option, value, f"{option}={value}"],
            rf"^UsageError: .* got: parameter {option} specified multiple times; see whet compress --help\n$",
        )
        for option, value in (("--keep", "0.5"), ("--train-file", "x"), ("--seed", "1"), ("--device", "cpu"))
    },
    # corrections
    "a LoRA target that is not there": (nothing, [*FINETUNE, "--lora", "2", "--lora-targets", "x"], r"targets of LoRA"),
    "a LoRA rank of 0": (nothing, [*FINETUNE, "--lora", "0"], r"1 <= rank <= 65536 must hold, but got rank=0"),
    # students
    "an unknown student": (nothing, [*DISTILL, "layer_set:odd"], r"the student must be a known name.*layer_subset"),
    "too many layers": (nothing, [*DISTILL, "layer_subset:top:9"], r"1 <= count <= 2 must hold for this teacher, but"),
    "a layer twice": (
        nothing,
        [*DISTILL, "layer_subset:0,0"],
        r"layers must be different numbers from 0 to 1, but",
    ),
    "hidden states of a student without": (
        nothing,
        [*DISTILL, "recurrent:lstm:8", "--hidden-states", "1"],
        r"teacher and student must both give hidden states, but RecurrentForSequenceClassification gives none",
    ),
    "a cache of hidden states": (
        nothing,
        [*DISTILL, "layer_subset:odd", "--cosine", "1", "--cache", "kept"],
        r"a cache holds predictions alone, but got cache=kept and weights of hidden states or relations; leave",
    ),
    "a cache in the new model": (
        nothing,
        [*DISTILL, "layer_subset:odd", "--cache", "new/kept"],
        r"the cache must lie outside of the new model, but got cache=new/kept; name another",
    ),
    "a cache that is the new model": (
        nothing,
        [*DISTILL, "layer_subset:odd", "--cache", "new"],
        r"the cache must lie outside of the new model, but got cache=new; name another",
    ),
    "an alpha above 1": (nothing, [*DISTILL, "layer_subset:odd", "--alpha", "1.5"], r"0 <= alpha <= 1 must hold, but"),
    # names
    "an unknown task": (
        nothing,
        [*COMPRESS, *DATA, "--task", "agreemnt"],
        r"the task must be a known name, but got 'agreemnt'; did you mean agreement",
    ),
    "an unknown method": (
        nothing,
        [*COMPRESS, "--method", f"{LAST}x", "--keep", "0.5"],
        rf"the method must be a known name, but got '{LAST}x'; did you mean {LAST}",
    ),
    "an unknown metric": (
        nothing,
        [*MEASURE, "--metric", "acuracy"],
        r"the metric must be a known name, but got 'acuracy'; did you mean accuracy",
    ),
    "a metric that is no quality": (nothing, [*MEASURE, "--metric", "size"], r"metric must be a known name.* 'size'"),
    "an unknown parameter": (
        nothing,
        [*COMPRESS, *BLIND, "--set", "alocation=uniform"],
        rf"{NEEDS_NOTHING.name()} takes the parameters .*keep.*, but got alocation='uniform'; correct it",
    ),
    "an unknown choice": (
        nothing,
        [*COMPRESS, *BLIND, "--set", "allocation=best"],
        r"allocation must be one of uniform, .*, but got allocation='best'; ",
    ),
    "an unknown model": (
        nothing,
        ["compress", "modle", "--out", "new", *BLIND],
        r"the model must be a folder or hub name that transformers can read, but got modle: .*; check the name",
    ),
    "an unknown model of several": (nothing, ["measure", "model", "modle", *OWN], r"the model must be .*got modle: "),
    # parameters
    **{
        f"keep {value}": (
            nothing,
            [*COMPRESS, *BLIND[:2], f"--keep={value}"],
            rf"0 < keep <= 1 must hold, but got keep={shown}; ",
        )
        for value, shown in (("0", "0.0"), ("-1", "-1.0"), ("1.5", "1.5"), ("nan", "nan"), ("inf", "inf"))
    },
    "no keep": (
        nothing,
        [*COMPRESS, *BLIND[:2]],
        r"keep or speedup must be given with allocation=uniform, but got none; such as keep=0.4",
    ),
    "a parameter of another type": (
        nothing,
        [*COMPRESS, *BLIND[:2], "--set", "keep=much"],
        r"keep must be of type float, but got keep='much'; ",
    ),
    "a parameter twice": (
        nothing,
        [*COMPRESS, *BLIND, "--set", "keep=0.3"],
        r"keep must be given once, but got 'keep=0.3' as well; leave one out",
    ),
    "a method twice": (nothing, [*COMPRESS, *BLIND, "--set", "method=x"], r"method must be given once, but got"),
    "a setting without value": (
        nothing,
        [*COMPRESS, *BLIND, "--set", "allocation"],
        r"--set must be NAME=VALUE, but got 'allocation'; such as --set allocation=uniform",
    ),
    "no layer": (
        nothing,
        [*COMPRESS, *BLIND, "--set", "include=decoder.*"],
        r"no linear layer matches 'decoder.\*'; the linear layers here are bert.encoder",
    ),
    "an unknown runtime": (
        nothing,
        ["export", "small", "--to", "onyx"],
        r"the runtime must be a known name, but got 'onyx'",
    ),
    "an export of a model that whet did not write": (
        nothing,
        ["export", "model", "--to", "onnxruntime"],
        r"a folder that whet wrote, but got model; give one for a copy of the model with its export: "
        r"whet export model --to onnxruntime --out model-exported",
    ),
    "the options of such an export": (
        nothing,
        ["export", "model", "--to", "onnx,openvino", "--precision", "int8", *OWN[:2], "--seed", "3"],
        r"whet export model --to onnx,openvino --precision int8 --train-file train.csv --seed 3 --out model-exported",
    ),
    "a precision of no runtime": (
        nothing,
        [*MEASURE, "--precision", "int8"],
        r"--precision must go with --runtime, but got int8 alone; add --runtime onnxruntime, or leave it out",
    ),
    "an unknown precision to measure": (
        nothing,
        [*MEASURE, "--runtime", "onnxruntime", "--precision", "int4"],
        r"the precision must be a known name, but got 'int4'; did you mean int8",
    ),
    "an unknown runtime to measure": (
        nothing,
        [*MEASURE, "--runtime", "pytorch,onyx"],
        r"the runtime must be a known name",
    ),
    "no layer left": (
        nothing,
        ["compress", "small", "--out", "new", *BLIND],
        r"all that '\*' matches are compressed already",
    ),
    "infinite epochs": (nothing, [*FINETUNE[:-1], "inf"], r"0 < epochs <= 10000 must hold, but got epochs=inf; "),
    "no epochs": (nothing, [*FINETUNE[:-1], "0"], r"0 < epochs <= 10000 must hold, but got epochs=0"),
    "no learning rate": (nothing, [*FINETUNE, "--learning-rate", "nan"], r"learning_rate <= 1e.38 must hold, but got"),
    "a learning rate far too large": (
        nothing,
        [*FINETUNE, "--learning-rate", "1e38"],
        r"the loss and the weights must stay finite, but got others at step \d with learning_rate=1e\+38; give a",
    ),
    "a learning rate far too large for corrections": (
        nothing,
        [*FINETUNE, "--lora", "2", "--learning-rate", "1e38"],
        r"the loss and the weights must stay finite, but got others at step \d with learning_rate=1e\+38; give a",
    ),
    **{
        f"--lora-{name} alone": (
            nothing,
            [*FINETUNE, f"--lora-{name}", *value],
            rf"--lora-{name} must go with --lora, but got it alone; add --lora 8, or leave it out",
        )
        for name, value in {"alpha": ["8"], "dropout": ["0.1"], "targets": ["*.query"], "norms": []}.items()
    },
    "a tracker that is not there": (
        nothing,
        [*FINETUNE, "--report-to", "nonsense"],
        r"trackers must be installed and known to transformers, but got nonsense; there are .*tensorboard",
    ),
    "more text that is not there": (
        nothing,
        [*DISTILL, "layer_subset:top:1", "--unlabeled", "more.csv"],
        r"the data file must exist, but got more.csv; check the path",
    ),
    "pairs beside single sentences": (
        lambda place: (place / "more.csv").write_text("text,text_pair\nw5 w6,w7\n"),
        [*DISTILL, "layer_subset:top:1", "--unlabeled", "more.csv", "--text-pair", "text_pair"],
        r"the columns text_pair must be in train.csv",
    ),
    "more text without its column": (
        lambda place: (place / "more.csv").write_text("sentence\nw5 w6\n"),
        [*DISTILL, "layer_subset:top:1", "--unlabeled", "more.csv"],
        r"the columns text must be in more.csv, but got sentence; give the names of columns in",
    ),
    "an empty batch": (
        nothing,
        [*FINETUNE, "--batch-size", "0"],
        r"1 <= batch_size <= 1000000 must hold, but got batch_size=0",
    ),
    "two sizes of a batch": (
        nothing,
        [*MEASURE, "--batch-size", "8", "--batch-tokens", "512"],
        r"one of batch_size and batch_tokens must be given, but got batch_size=8 and batch_tokens=512; leave one out",
    ),
    "no threads": (
        nothing,
        [*COMPRESS, *BLIND, "--threads", "0"],
        r"1 <= threads <= 1024 must hold, but got threads=0; leave it out, or correct it",
    ),
    **{
        f"device {device}": (
            nothing,
            [*COMPRESS, *BLIND, "--device", device],
            rf"device must be one that torch can use, but got device='{device}'; try cpu",
        )
        for device in ("cuda:99", "banana", "meta")
    },
    "few rounds": (nothing, [*MEASURE, "--rounds", "5"], r"6 <= rounds <= 10000 must hold, but got rounds=5; "),
    "no tokens": (
        nothing,
        ["inspect", "model", "--length", "0"],
        r"1 <= length <= 1000000 must hold, but got length=0; give one such as length=64",
    ),
    "no sentences": (
        nothing,
        ["inspect", "model", "--batch-size", "-1"],
        r"1 <= batch_size <= 1000000 must hold, but got batch_size=-1; give one such",
    ),
    # models
    "weights that are NaN": (
        lambda place: _weights(place, float("nan")),
        [*COMPRESS, *BLIND],
        r"all weights must be finite, but got NaN or infinity in bert.encoder.layer.1.output.dense.weight; train it",
    ),
    "weights that are infinite": (
        lambda place: _weights(place, float("inf")),
        MEASURE,
        r"all weights must be finite, but got NaN or infinity in bert.encoder.layer.1.output.dense.weight; train it",
    ),
    "a base without head": (
        nothing,
        ["compress", "base", "--out", "new", *BLIND],
        r"the model must be a text classifier, .* or .*, but base holds a BertModel; fine-tune it first: whet fine",
    ),
    "a base with another head": (
        lambda place: tiny_model("bert", 3).save_pretrained(place / "base"),
        FINETUNE,
        r"the base must have no head, or one for the task's 2 classes, but base has num_labels=3; name the base",
    ),
    "a regression model on classes": (
        _regression,
        MEASURE,
        r"scores in train.csv must be finite numbers, but got '\w+' in row 1; correct the row, or give the name",
    ),
    "a classifier on scores": (
        _rows("dev.csv", b"text,label\nw5,1\nw6,2\n"),
        ["measure", "model", "--train-file", "dev.csv", "--dev-file", "dev.csv", "--metric", "pearson"],
        r"the model must be a regressor, as your data ask, but it is a text classifier; give another model",
    ),
    "labels that the head does not know": (
        lambda place: edit_json(place / "model" / "config.json", id2label={"0": "bad", "1": "good"}),
        MEASURE,
        r"head must know the labels no, yes, but it knows bad, good; say which .*--label-map no=CLASS,yes=CLASS, with",
    ),
    "a head without names": (
        lambda place: edit_json(place / "model" / "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"}),
        [*DISTILL, "layer_subset:odd"],
        r"head must know the labels no, yes, but it knows LABEL_0, LABEL_1; say .*--label-map no=CLASS,yes=CLASS, with",
    ),
    "a label map of other labels": (
        nothing,
        [*MEASURE, "--label-map", "bad=no,good=yes"],
        r"--label-map must name every label of the data, no, yes, but got none for no, yes; add them",
    ),
    "an option of data without data": (
        nothing,
        [*COMPRESS, *BLIND, "--label", "topic"],
        r"one of --task and --train-file must be given, but got both or none; give one",
    ),
    "a label map for a new head": (
        nothing,
        [*FINETUNE, "--label-map", "no=0,yes=1"],
        r"--label-map must go with a model that has classes, but fine-tuning gives it those of the data; leave it out",
    ),
    "a positive class that there is not": (
        nothing,
        [*MEASURE, "--metric", "f1", "--positive", "si"],
        r"--positive must be a class of the task, no, yes, but got si; correct it",
    ),
    "several labels for a text": (
        _rows("train.jsonl", b'{"text": "w5", "label": [0, 1]}\n' * 40),
        ["finetune", "base", "--out", "new", "--train-file", "train.jsonl"],
        r"column label must hold text or numbers, but row 1 of train.jsonl holds a list; .* --kind multi_label if",
    ),
    "a folder for data that are generated": (
        nothing,
        ["measure", "model", "--task", "agreement", "--data-dir", "."],
        r"--data-dir must go with a task that has files, but agreement is generated, and got .; leave it out",
    ),
    "a column of many labels": (
        nothing,
        [*MEASURE, "--label", "text", "--text", "label"],
        r"labels in dev.csv must be .* and \d+ more, but got .* and \d+ more; correct",
    ),
    "a folder without tokenizer": (
        _no_tokenizer,
        [*COMPRESS, *DATA, *OWN],
        r"the tokenizer must know words, but model has no tokenizer or an empty one; add",
    ),
    "a tokenizer without padding and end": (
        _no_padding_no_end,
        MEASURE,
        r"the tokenizer must have a padding or an end token, but model has neither; add one",
    ),
    "a file as model": (
        nothing,
        ["compress", "model/config.json", "--out", "new", *BLIND],
        r"the model must be a folder or hub name, but got the file model/config.json; name its folder",
    ),
    "an empty name": (
        nothing,
        ["compress", "", "--out", "new", *BLIND],
        r"got: an empty value after compress; see whet",
    ),
    "a name that is too long": (
        nothing,
        ["measure", "model", *OWN, "--rounds", "6", "--out", "a" * 5000],
        r"the output must have a name of at most \d+ bytes, but got 5000",
    ),
    "a missing model for a runtime": (
        nothing,
        ["measure", "nowhere", *OWN, "--runtime", "onnxruntime"],
        r"but got nowhere: there is no such folder, and HF_HUB_OFFLINE is set; check the name",
    ),
    "a missing model to export": (
        nothing,
        ["export", "nowhere", "--to", "onnx"],
        r"but got nowhere: there is no such folder, and HF_HUB_OFFLINE is set; check the name",
    ),
    "a folder without config": (
        lambda place: (place / "model" / "config.json").unlink(),
        [*COMPRESS, *BLIND],
        r"the model's folder must hold config.json, but model has none; check the name",
    ),
    "half a config": (
        lambda place: (place / "model" / "config.json").write_text("{"),
        [*COMPRESS, *BLIND],
        r"model/config.json must be a valid JSON file, but .*; copy it again",
    ),
    "a checkpoint that is a pickle": (
        _pickle,
        [*COMPRESS, *BLIND],
        r"the weights must be in safetensors, but model holds only",
    ),
    "a truncated checkpoint": (
        lambda place: _truncate(place / "model" / "model.safetensors"),
        [*COMPRESS, *BLIND],
        r"the model must be .*but got model: .*; check",
    ),
    "a truncated artifact": (
        lambda place: _truncate(place / "small" / "model.safetensors"),
        ["measure", "model", "small", *OWN],
        r"files must match the manifest, but small/model.safetensors was truncated or altered; copy it again",
    ),
    "an altered artifact": (
        lambda place: edit_json(place / "small" / "config.json", hidden_act="relu"),
        ["inspect", "small"],
        r"files must match the manifest, but small/config.json was truncated or altered; copy it again",
    ),
    # data
    "no data": (nothing, [*COMPRESS, *DATA], rf"{NEEDS_DATA.name()} needs .* data, but got none; give --task or"),
    "no task": (nothing, ["measure", "model"], r"one of --task and --train-file must be given, but got both or none"),
    "two tasks": (
        nothing,
        [*MEASURE, "--task", "agreement"],
        r"one of --task and --train-file must be given, but got both or none; give one",
    ),
    "no dev file": (
        nothing,
        ["measure", "model", *OWN[:2]],
        r"--dev-file must be given with --train-file, but got none; add it",
    ),
    "a dev file alone": (
        nothing,
        [*COMPRESS, *BLIND, *OWN[2:]],
        r"--train-file must be given, but got --dev-file alone; add",
    ),
    "a dev file with a task": (
        nothing,
        ["measure", "model", "--task", "agreement", *OWN[2:]],
        r"--dev-file, .* must go with --train-file, but got one with --task; leave it out",
    ),
    "a data folder with own files": (
        nothing,
        [*MEASURE, "--data-dir", "."],
        r"--data-dir must go with --task, but got it with --train-file; leave it out",
    ),
    "an empty name of a file": (
        nothing,
        [*COMPRESS, *DATA, "--train-file", "", *OWN[2:]],
        r"the command line must be one that whet knows, but got: an empty value after --train-file; see whet",
    ),
    "a missing file": (
        lambda place: (place / "train.csv").unlink(),
        [*COMPRESS, *DATA, *OWN],
        r"the data file must exist, but got train.csv; check the path",
    ),
    "an empty file": (
        _rows("train.csv", b""),
        [*COMPRESS, *DATA, *OWN],
        r"the data file must hold rows, but train.csv is empty; write it again",
    ),
    "a file with a header only": (_rows("train.csv", b"text,label\n"), FINETUNE, r"must hold rows, but train.csv has"),
    "a file that is not UTF-8": (
        _rows("dev.csv", "text,label\nhé,yes\n".encode("latin-1")),
        MEASURE,
        r"dev.csv must be UTF-8, but byte 0xe9 in it is not; convert it first",
    ),
    "a column that is not there": (
        nothing,
        [*MEASURE, "--text", "sentence"],
        r"the columns sentence must be in train.csv, but got text, label; give the names of columns",
    ),
    "one class": (
        _rows("train.csv", b"text,label\n" + b"w5,yes\n" * 40),
        [*MEASURE[:2], "--train-file", "train.csv", "--dev-file", "train.csv"],
        r"the training data of tabular must hold at least two classes, but got one only; give data",
    ),
    "labels of the dev file that are new": (
        _rows("dev.csv", b"text,label\nw5,yes\nw6,maybe\n"),
        MEASURE,
        r"labels in dev.csv must be no, yes, but got maybe; correct or remove",
    ),
    "training data too few to hold some out": (
        _rows("train.csv", b"text,label\nw5,yes\nw6,no\n"),
        FINETUNE,
        r"tabular must have training data to hold out, but got 2 examples in all; give at least 20",
    ),
    "calibration smaller than a batch": (
        nothing,
        [*COMPRESS, *DATA, *OWN, "--calibration", "4", "--batch-size", "16"],
        r"calibration must fill one batch of 16, but got 4 training examples; give more examples or a smaller",
    ),
    "training data smaller than a batch": (
        _rows("train.csv", b"text,label\n" + b"w5,yes\nw6,no\n" * 5),
        [*COMPRESS, *DATA, *OWN, "--calibration", "512", "--batch-size", "16"],
        r"calibration must fill one batch of 16, but got 10 training examples; give more",
    ),
    "no calibration": (
        nothing,
        [*COMPRESS, *DATA, *OWN, "--calibration", "0"],
        r"1 <= calibration <= 100000000 must hold, but got calibration=0; ",
    ),
    # recipes
    "no recipe": (nothing, COMPRESS, r"one of --recipe and --method must be given, but got both or none; give one"),
    "a recipe and a method": (nothing, [*BY_RECIPE, *BLIND], r"one of --recipe and --method must be given"),
    "a recipe and a parameter": (
        nothing,
        [*BY_RECIPE, "--keep", "0.5"],
        r"--keep, --speedup, --keep-time and --set .*, but got them with --recipe; put them in the file",
    ),
    "a recipe and a speedup": (
        nothing,
        [*BY_RECIPE, "--speedup", "2"],
        r"--keep-time and --set .*, but got them with",
    ),
    "a share and a speedup": (
        nothing,
        [*COMPRESS, *BLIND, "--speedup", "2"],
        r"one of --keep, --speedup, --keep-time must be given, but got --keep and --speedup; leave one out",
    ),
    "no speedup": (nothing, [*COMPRESS, "--speedup", "1"], r"1 < speedup <= 10000 must hold, but got speedup=1.0; "),
    "a share of all the time": (
        nothing,
        [*COMPRESS, "--keep-time", "1"],
        r"0 < keep_time < 1 must hold, but got keep_time=1.0; give one such as keep_time=0.5",
    ),
    "a share alone, without data": (
        nothing,
        [*COMPRESS, "--keep", "0.4"],
        r"factorization.kfac needs calibration data, but got none; give --task or --train-file",
    ),
    "a plan that is no mapping": (
        nothing,
        [*COMPRESS, *BLIND[:2], "--set", "allocation=ranks", "--set", "ranks=96"],
        r"ranks must be a mapping from text to numbers, but got ranks=96; ",
    ),
    "a missing recipe": (nothing, BY_RECIPE, r"the recipe must exist, but got r.yaml; "),
    "a recipe that is no list": (
        _recipe(f"method: {LAST}\n"),
        BY_RECIPE,
        r"the recipe must be a list of steps such as `- method: kfac`, but r.yaml is not; correct it",
    ),
    "a recipe that is no YAML": (_recipe("- {method"), BY_RECIPE, r"the recipe must be a YAML or JSON file, but"),
    "a recipe of an unknown method": (
        _recipe(f"- method: {LAST}x\n"),
        BY_RECIPE,
        rf"the method must be a known name, but got '{LAST}x'; did you mean",
    ),
    "a recipe with an unknown parameter": (
        _recipe(f"- method: {LAST}\n  kep: 0.5\n"),
        BY_RECIPE,
        r"takes the parameters .*, but got kep=0.5; correct it",
    ),
    "a recipe with a bad value": (
        _recipe(f"- method: {LAST}\n  keep: 2\n"),
        BY_RECIPE,
        r"0 < keep <= 1 must hold, but got keep=2; ",
    ),
    # places
    "an output that holds files": (
        lambda place: shutil.copytree(place / "base", place / "new"),
        [*COMPRESS, *BLIND],
        r"the output folder must be new or empty, but new holds files; name another or give --overwrite",
    ),
    "an output that is a file": (
        nothing,
        ["compress", "model", "--out", "dev.csv", *BLIND, "--overwrite"],
        r"the output must be a folder, but got dev.csv.* is a file; name another",
    ),
    "an output below a file": (
        nothing,
        ["compress", "model", "--out", "dev.csv/new", *BLIND],
        r"the output must be a folder, but got dev.csv/new.* is a file; name another",
    ),
    "the working folder as output": (
        nothing,
        ["compress", "model", "--out", ".", *BLIND, "--overwrite"],
        r"the output folder must be one of its own, but got ., which holds .*; name another",
    ),
    "a folder above as output": (
        nothing,
        ["compress", "model", "--out", "..", *BLIND, "--overwrite"],
        r"the output folder must be one of its own, but got \.\., which holds",
    ),
    "the model's own folder as output": (
        nothing,
        ["compress", "model", "--out", "model", *BLIND, "--overwrite"],
        r"the output folder must be one of its own, but got model, which holds .*model; name another",
    ),
    "the base's own folder as output": (
        nothing,
        ["finetune", "base", "--out", "base", *OWN, "--overwrite"],
        r"the output folder must be one of its own, but got base, which holds",
    ),
    "an output that holds the training data": (
        _inside("train.csv"),
        ["compress", "small", "--out", "inside", *DATA, "--train-file", "inside/train.csv", "--overwrite"],
        r"must be one of its own, but got inside, which holds .*train.csv; name another",
    ),
    "an output that holds the dev data": (
        _inside("dev.csv"),
        [*FINETUNE[:2], "--out", "inside", *OWN[:3], "inside/dev.csv", "--overwrite"],
        r"must be one of its own, but got inside, which holds .*dev.csv; name another",
    ),
    "an output that holds the recipe": (
        _inside("train.csv"),
        ["compress", "small", "--out", "inside", "--recipe", "inside/recipe.yaml", "--overwrite"],
        r"must be one of its own, but got inside, which holds .*recipe.yaml; name another",
    ),
    "an output that holds more text": (
        _inside("train.csv"),
        [*DISTILL[:2], "--out", "inside", *DISTILL[4:], "layer_subset:odd", "--unlabeled", "inside/train.csv"],
        r"must be one of its own, but got inside, which holds .*train.csv; name another",
    ),
    "an output that holds the cache": (
        _inside("train.csv"),
        [*DISTILL[:2], "--out", "inside", *DISTILL[4:], "layer_subset:odd", "--cache", "inside/train.csv"],
        r"must be one of its own, but got inside, which holds .*train.csv; name another",
    ),
    "an output that holds files of others": (
        _inside("train.csv"),
        ["compress", "model", "--out", "inside", *BLIND, "--overwrite"],
        r"only what whet wrote may be replaced, but inside holds files of others: train.csv; name another",
    ),
    "an output in a circle of links": (
        lambda place: (place / "new").symlink_to("new"),
        [*COMPRESS, *BLIND],
        r"the output must be a path that can be written, but new: Too many levels of symbolic links; name another",
    ),
    "an output of two lines": (
        nothing,
        ["compress", "model", "--out", "a\nb", *BLIND],
        r"the output must have a name of plain text, without ends of lines, but got 'a\\nb'; name another",
    ),
    "a picture over the data": (
        nothing,
        [*MEASURE, "--picture", "dev.csv"],
        r"--picture must be new or a picture, but dev.csv is another file; name another",
    ),
    "a report among files of others": (
        nothing,
        ["report", "small", "--out", "base"],
        r"a report must have its own folder, or that of what was measured, but base holds config.json; name another",
    ),
    "a picture nowhere": (
        nothing,
        [*MEASURE, "--picture", "nowhere/plot.png"],
        r"--picture must be a file in a folder that exists, but got nowhere/plot.png; name another",
    ),
    "a folder as picture": (nothing, [*MEASURE, "--picture", "model"], r"--picture must be a file"),
    "measurements into a folder that holds files": (
        nothing,
        [*MEASURE, "--out", "base"],
        r"the output folder must be new or empty, but base holds files; name another or give --overwrite",
    ),
    "a report of nothing": (nothing, ["report", "base"], r"must hold models that whet measured, but base holds none"),
    "a report of what was not measured": (
        nothing,
        ["report", "small", "--out", "new"],
        r"models must have been measured, but small were not; run whet measure BASELINE MODEL --task TASK",
    ),
    "a report of a folder that is not there": (
        nothing,
        ["report", "nowhere"],
        r"a report is of must be a folder, but got nowhere, which",
    ),
    "a report of several folders to nowhere": (
        nothing,
        ["report", "model", "small"],
        r"--out must be given for a repo",
    ),
    "a report among a model's files": (nothing, ["report", "small"], r"must lie outside of a model's folder, whose"),
    "a condition without a value": (
        nothing,
        ["report", "base", "--only", "threads"],
        r"--only must be NAME=VALUE, each name once, but got 'threads'; such as threads=2",
    ),
    "a condition given twice": (
        nothing,
        ["report", "base", "--only", "threads=1", "--only", "threads=2"],
        r"--only must be NAME=VALUE, each name once, but got 'threads=2'",
    ),
    "another's folder for the demo": (
        nothing,
        ["demo", "--out", "model"],
        r"the demo must have a folder of its own, but model holds config.json; name another or delete it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_a_sentence(place, run, case):
    spoil, words, message = BAD[case]
    spoil(place)
    before = tree(place.parent)
    done = run(*words)
    assert done.code == 2
    assert re.search(message, done.err, re.DOTALL), done.err
    kind, _, sentence = done.err.partition(": ")
    assert re.fullmatch(r"[A-Z]\w+", kind) and sentence.strip()
    assert "Traceback" not in done.err
    assert sentence.count("\n") == 1 or case == "a recipe that is no YAML"
    assert tree(place.parent) == before


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("no=0, yes = LABEL_1", {"no": "0", "yes": "LABEL_1"}),
        ("a=b=1,c=0", {"a=b": "1", "c": "0"}),
        ('{"a, b": 1, "c": "x"}', {"a, b": "1", "c": "x"}),
        *((text, None) for text in ("", "no", "=0", "no=", "no=0,no=1", "{", "{}", '{"no": [0]}', '{"no": {"a": 1}}')),
    ],
)
def test_a_label_map_is_read_or_refused(text, given):
    if given is not None:
        assert label_map_in(text) == given
        return
    with pytest.raises(InvalidParameter, match=r"^--label-map must be LABEL=CLASS .*; such as negative=0,positive=1$"):
        label_map_in(text)


@pytest.mark.parametrize("words", [[*COMPRESS, *BLIND], FINETUNE], ids=["compress", "finetune"])
def test_a_full_disk_is_answered_and_leaves_nothing(place, run, words, monkeypatch):
    def full(self, folder, **others):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    done = run(*words)
    assert done.code == 2
    assert re.search(
        r"^OutputNotWritten: .*new.* must be writable to its end, but .*No space left.*; free some", done.err
    )
    left = {path.name for path in place.iterdir()} - {"model", "base", "small", "train.csv", "dev.csv"}
    assert left == (set() if words[0] == "compress" else {".new.training"})


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_cannot_be_written_is_answered(place, run):
    (place / "locked").mkdir(mode=0o500)
    done = run("compress", "model", "--out", "locked/new", *BLIND)
    assert done.code == 2
    assert "OutputNotWritten: the output folder must be writable, but" in done.err


# what is interrupted


class Stopped(NamedTuple):
    """How a command line ended that was stopped half-way."""

    code: int
    err: str


@pytest.fixture(scope="session")
def server():
    """The process whose children are interrupted."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "interruptible.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "waiting\n"
    yield process
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


@pytest.fixture
def stop(server, place):
    """Run a command line up to a moment and send it a signal there."""

    def stopped(sent: signal.Signals, pause: tuple[str, str], *words: str) -> Stopped:
        logs = place.parent / "logs"
        logs.mkdir(exist_ok=True)
        absolute = [str(place / word) if (place / word).exists() or word == "new" else word for word in words]
        server.stdin.write(json.dumps({"argv": absolute, "folder": str(logs), "pause": pause}) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        deadline = time.monotonic() + 60
        while not (logs / "ready").exists() and time.monotonic() < deadline and psutil.pid_exists(pid):
            time.sleep(0.01)
        paused = (logs / "ready").exists()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent if paused else signal.SIGKILL)
        code = int(server.stdout.readline())
        err = (logs / "stderr").read_text()
        assert paused, f"it ended with {code} before it came to {pause}: {err}"
        shutil.rmtree(logs)
        return Stopped(code, err)

    return stopped


MOMENTS = {
    "reading the model": ("whet.api.compressing:load_with_tokenizer", "before"),
    "in a method": (f"{NEEDS_NOTHING.__module__}:{NEEDS_NOTHING.__name__}.apply", "before"),
    "between method and saving": ("whet.methods.recipe:Recipe.apply", "after"),
    "before the weights": ("transformers:PreTrainedModel.save_pretrained", "before"),
    "after the weights": ("transformers:PreTrainedModel.save_pretrained", "after"),
    "before the manifest": ("whet.models.manifest:Manifest.to_json", "before"),
    "before the folder appears": ("whet.utils.outputs:_swap", "before"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing(place, stop, moment):
    before = tree(place)
    done = stop(signal.SIGINT, MOMENTS[moment], "compress", "model", "--out", "new", *BLIND)
    assert done == Stopped(130, "stopped; nothing half-written was left\n")
    assert tree(place) == before


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_nothing_that_looks_finished(place, stop, run, moment):
    words = ["compress", "model", "--out", "new", *BLIND]
    done = stop(signal.SIGKILL, MOMENTS[moment], *words)
    assert done.code == -signal.SIGKILL
    assert not (place / "new").exists()
    assert all(name.endswith((".partial", ".lock")) for name in _hidden(place))
    assert run(*words).code == 0
    artifact.load_verified(place / "new")
    assert not _hidden(place)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_overwrite_leaves_the_old_folder(place, stop, run, sent):
    shutil.copytree(place / "small", place / "new")
    before = tree(place / "new")
    words = ["compress", "model", "--out", "new", *BLIND, "--overwrite"]
    stop(sent, MOMENTS["before the folder appears"], *words)
    assert tree(place / "new") == before
    stop(signal.SIGKILL, ("whet.utils.outputs:_swap", "after"), *words)
    assert tree(place / "new") != before
    artifact.load_verified(place / "new")
    assert run(*words).code == 0
    assert not _hidden(place)


TRAIN = ["--epochs", "2", "--batch-size", "1", "--learning-rate", "1e-3"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_goes_on_where_it_stopped(place, stop, run, sent, monkeypatch):
    steps = []
    step = Trainer.training_step
    monkeypatch.setattr(Trainer, "training_step", lambda *args, **rest: steps.append(1) or step(*args, **rest))
    base, own = str(place / "base"), [str(place / word) if "." in word else word for word in OWN]
    saved = ("whet.training.loop:Loop._save_checkpoint", "after")
    done = stop(sent, saved, "finetune", "base", "--out", "new", *OWN, *TRAIN)
    assert done.code == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    assert not (place / "new").exists()

    for words in (["--epochs", "3", *TRAIN[2:]], [*TRAIN[:-1], "1e-4"], [*TRAIN, "--seed", "1"]):
        refused = run("finetune", base, "--out", "new", *own, *words)
        assert refused.code == 2
        assert re.search(
            r"^InvalidParameter: an interrupted run must resume with its own settings, but got .*=.*, which .*complete"
            r".json does not hold; give the settings of that file, or give --overwrite to throw the run away\n$",
            refused.err,
        )
    shutil.copytree(place / "base", place / "other")
    assert "got model=" in run("finetune", str(place / "other"), "--out", "new", *own, *TRAIN).err
    assert "got data_sha256=" in run("finetune", base, "--out", "new", *own, *TRAIN, "--text", "label").err
    assert not steps

    assert run("finetune", base, "--out", "new", *own, *TRAIN).code == 0
    assert len(steps) == 2 * 76 - 50
    assert not (place / ".new.training").exists()
    assert run("finetune", base, "--out", "whole", *own, *TRAIN).code == 0
    for name in ("curve.csv", "model.safetensors"):
        assert (place / "new" / name).read_bytes() == (place / "whole" / name).read_bytes()


def test_a_training_that_was_refused_or_failed_early_does_not_stand_in_the_way(place, run):
    assert run(*FINETUNE, "--learning-rate", "1e38").code == 2
    assert run(*FINETUNE).code == 0
