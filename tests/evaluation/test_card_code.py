"""The code of a model card, run as printed beside a copy of its folder, and the folder as it would be on the hub."""

import io
import re
import shutil
import site
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

import whet
from folders import classifier, edit_json, save, write_rows
from whet.evaluation import BenchmarkRow, records
from whet.evaluation.benchmark import Benchmark
from whet.models import artifact
from whet.runtimes.base import runtime_named

TEXT = "The text to classify."
TARGETS = (("pytorch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"))
FORMS = ("pytorch", "onnxruntime fp32", "onnxruntime int8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> Path:
    """A compressed model with exports and measurements, made below a folder whose name is nobody's business."""
    secret = tmp_path_factory.mktemp("secret")
    task = whet.load_task(
        train_file=write_rows(secret / "train.csv", 60),
        dev_file=write_rows(secret / "dev.csv", 24, seed=1),
        text="text",
    )
    base = save(classifier(blocks=1), tokenizer, secret / "base")
    edit_json(base / "config.json", _name_or_path=str(base))
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: owner/base\n---\n")
    out = secret / "small"
    whet.compress(base, whet.Recipe.from_list([{"method": "svd", "keep": 0.5}]), out)
    whet.export(out, ["onnxruntime"], precisions=["fp32", "int8"])
    benchmark = Benchmark(rounds=6, singles=2, timed=4, metrics=("latency", "size"))
    rows = [BenchmarkRow(base), *(BenchmarkRow(out, *target) for target in TARGETS)]
    for trial in benchmark.compare(rows, task)[1:]:
        records.record(out, trial)
    return out


@pytest.fixture
def elsewhere(folder, tmp_path, monkeypatch) -> Path:
    """A copy on another machine, and a working folder that holds it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def blocks_of(folder: Path) -> dict[str, str]:
    """Return the code of a card by the form that it loads."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    parts = re.findall(r"^### In (.*?)$\n(.*?)(?=^##)", card, re.DOTALL | re.MULTILINE)
    return {form: code for form, text in parts for code in re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)}


def run(code: str) -> dict[str, Any]:
    """Run code as a script, and return its names; `printed` is what it printed."""
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "card", "exec"), names)
    return names | {"printed": printed.getvalue()}


def inputs_of(tokenizer) -> dict[str, torch.Tensor]:
    return dict(tokenizer(TEXT, return_tensors="pt"))


def test_every_form_has_its_code(elsewhere):
    assert sorted(blocks_of(elsewhere)) == sorted(FORMS)


@pytest.mark.parametrize("target", TARGETS[1:], ids=" ".join)
def test_the_code_of_an_export_gives_what_that_export_was_measured_with(elsewhere, tokenizer, target):
    names = run(blocks_of(elsewhere)[" ".join(target)])
    runtime, precision = target
    session = runtime_named(runtime).open(elsewhere, precision=precision, threads=1)
    assert names["predictor"].target == " ".join(target)
    np.testing.assert_allclose(names["predictor"].logits([TEXT]), session(inputs_of(tokenizer))["logits"], atol=1e-5)
    assert names["printed"].startswith("[Prediction(label=")


def test_the_code_of_pytorch_gives_the_models_own_answers(elsewhere, tokenizer):
    names = run(blocks_of(elsewhere)["pytorch"])
    with torch.inference_mode():
        logits = whet.load_model(elsewhere)(**inputs_of(tokenizer)).logits
    [answer] = names["classify"](TEXT)
    assert answer["score"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)
    assert names["classify"].model.config.id2label[int(logits.argmax())] == answer["label"]


def test_each_code_stands_beside_its_own_figure(folder):
    """The figures are those of the newest trial of each form."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    newest = {(one.conditions["runtime"], one.conditions["precision"]): one for one in records.trials(folder)}
    for form, target in zip(FORMS, TARGETS, strict=True):
        [text] = re.findall(rf"^### In {form}$\n(.*?)```", card, re.DOTALL | re.MULTILINE)
        for metric in ("latency_median", "throughput"):
            assert f"{newest[target].get(metric).versus.value:.2f} × (" in text


def test_an_export_is_on_the_card_at_once(tmp_path, tokenizer):
    records.save_model(classifier(blocks=1), tokenizer, tmp_path / "m", recipe=[], origin="base", seed=0)
    assert list(blocks_of(tmp_path / "m")) == ["pytorch"]
    whet.export(tmp_path / "m", ["onnxruntime"])
    assert sorted(blocks_of(tmp_path / "m")) == ["onnxruntime fp32", "pytorch"]
    whet.export(tmp_path / "m", ["onnxruntime"], out=tmp_path / "copy")
    assert (
        'whet.load("copy", runtime="onnxruntime", precision="fp32")' in blocks_of(tmp_path / "copy")["onnxruntime fp32"]
    )


def test_scores_are_those_of_the_model(tmp_path, tokenizer, monkeypatch):
    model = classifier(labels=["score"], blocks=1)
    model.config.problem_type = "regression"
    records.save_model(model, tokenizer, tmp_path / "m", recipe=[], origin="base", seed=0)
    monkeypatch.chdir(tmp_path)
    code = blocks_of(tmp_path / "m")["pytorch"]
    assert "import whet" not in code, "transformers alone loads it"
    with torch.inference_mode():
        expected = whet.load_model("m")(**inputs_of(tokenizer)).logits.item()
    assert run(code)["score"](TEXT)[0]["score"] == pytest.approx(expected, abs=1e-5)


def paths_in(folder: Path, forbidden: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the files of a folder that hold one of some texts."""
    for path in folder.iterdir():
        content = path.read_bytes()
        yield from ((path.name, text) for text in forbidden if text.encode() in content)


def test_nothing_in_a_folder_tells_where_it_was_made(folder):
    """Exports too: torch's exporter writes source lines with paths into them."""
    machine = [str(folder.parent), "secret", *site.getsitepackages(), str(Path(whet.__file__).parent), '.py"']
    assert list(paths_in(folder, machine)) == []


def test_what_two_lines_upload_loads_elsewhere(folder, tmp_path, monkeypatch):
    """The lines of the documentation, with the hub replaced by another folder."""
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, *, exist_ok: None)
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda self, *, repo_id, folder_path: shutil.copytree(folder_path, tmp_path / repo_id)
    )
    api = HfApi()
    api.create_repo("OWNER/NAME", exist_ok=True)
    api.upload_folder(repo_id="OWNER/NAME", folder_path=folder)
    there = tmp_path / "OWNER" / "NAME"
    artifact.verify(there)
    assert [whet.load(there, runtime=runtime, precision=precision).target for runtime, precision in TARGETS] == [*FORMS]
