"""The examples and deployments run as they are printed."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

import whet
from folders import classifier, edit_json, save
from helpers import tiny_model
from measured import keep, trial
from whet.cli.app import main
from whet.errors import InvalidArtifact, InvalidParameter
from whet.evaluation import records
from whet.utils.files import digest

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXTS = ["w5 w6", "w7 w8 w9 w10"]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, tokenizer) -> tuple[Path, Path]:
    """A model of others, and its deployment in int8 by the command line."""
    folder = tmp_path_factory.mktemp("examples")
    model, out = save(classifier(blocks=1), tokenizer, folder / "model"), folder / "deployment"
    run("export", model, "--to", "onnxruntime", "--precision", "int8", "--deploy", out)
    return model, out


def run(*words: object) -> None:
    """Run the command line, which must succeed."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["whet", *map(str, words)])
        main()
    assert end.value.code == 0


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run the command line, which must refuse, and return what it says."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["whet", *map(str, words)])
        main()
    assert end.value.code == 2
    return capsys.readouterr().err


def imported(path: Path) -> object:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_deployment_has_what_it_needs_and_no_weights(deployed):
    model, out = deployed
    names = {path.name for path in out.iterdir()}
    needed = {"model_quantized.onnx", "tokenizer.json", "tokenizer_config.json", "config.json"}
    assert names == needed | {"manifest.json", "serve.py", "requirements.txt", "README.md"}
    predictor = whet.load(out)
    assert predictor.target == "onnxruntime int8" and predictor.labels == ("no", "yes") and predictor.max_length == 40
    np.testing.assert_allclose(predictor.scores(TEXTS), whet.load(model).scores(TEXTS), atol=0.1)
    with pytest.raises(InvalidArtifact, match=r"is a deployment, which whet.load runs"):
        whet.load_model(out)
    task = whet.load_task(train_file=[{"text": text, "label": "no"} for text in TEXTS])
    with pytest.raises(InvalidArtifact, match=r"is a deployment, which whet.load runs; give the model that it was mad"):
        whet.measure([model, out], task)
    for asked in ({"runtime": "openvino"}, {"precision": "int7"}):
        with pytest.raises(
            InvalidParameter, match=r"it has onnxruntime int8; deploy the model that it was made from an"
        ):
            whet.load(out, **asked)


def test_the_card_of_a_deployment_runs(deployed, monkeypatch, capsys):
    card = (deployed[1] / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(deployed[1])
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.startswith("[Prediction(label=")
    assert "onnxruntime int8" in card and "no, yes" in card
    required = (deployed[1] / "requirements.txt").read_text(encoding="utf-8").split()
    assert required[0].startswith("whet[run]==") and any(one.startswith("onnxruntime==") for one in required)


def test_the_card_of_a_deployment_says_what_was_won_and_shows_names_as_they_are(tmp_path, tokenizer):
    model, out = tmp_path / "a*b*", tmp_path / "<b>out"
    records.save_model(classifier(labels=("<i>", "_x_")), tokenizer, model, recipe=[], origin="a_b_", seed=0)
    whet.export(model, ["onnxruntime"])
    place = {"runtime": "onnxruntime", "precision": "fp32", "baseline_disk": 87.0}
    keep(model, trial("a*b*", speedup=1.1), trial("a*b*", speedup=3.0, **place))
    card = (whet.deploy(model, out).folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# \\<b\\>out\n\n**3.0 times as fast, accuracy the same, 80 MiB instead of 87**: in onnx")
    assert r"(\<i\>, \_x\_)" in card and r"from a\_b\_." in card
    (model / "measurements.jsonl").write_text("{}\n")
    card = (whet.deploy(model, out, overwrite=True).folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# \\<b\\>out\n\nA text classifier")


def test_an_altered_deployment_is_refused(deployed, tmp_path):
    out = whet.deploy(deployed[1], tmp_path / "again").folder  # one may be made from another
    assert (out / "model_quantized.onnx").read_bytes() == (deployed[1] / "model_quantized.onnx").read_bytes()
    (out / "model_quantized.onnx").write_bytes(b"")
    with pytest.raises(InvalidArtifact, match="was truncated or altered"):
        whet.load(out)
    whet.deploy(deployed[1], out, overwrite=True)
    assert whet.load(out).predict(TEXTS) == whet.load(deployed[1]).predict(TEXTS)


def test_a_deployment_that_cannot_be_as_asked_is_refused_before_work_starts(tmp_path, tokenizer, capsys):
    model = tmp_path / "model"
    records.save_model(classifier(blocks=1), tokenizer, model, recipe=[], origin="tiny", seed=0)
    said = refused(capsys, "export", model, "--precision", "int8", "--opset", "20", "--deploy", tmp_path / "out")
    assert "--deploy must stand alone" in said and "but got --precision int8 --opset 20; add --to onnxruntime" in said
    writer = save(AutoModelForCausalLM.from_config(tiny_model("llama").config), tokenizer, tmp_path / "writer")
    said = refused(capsys, "export", writer, "--to", "onnx", "--deploy", tmp_path / "out")
    assert "a deployment must hold what runs without torch" in said
    assert not (tmp_path / "out").exists() and not list(writer.glob("*.onnx"))


def test_the_target_of_a_search_is_deployed(tmp_path, tokenizer, capsys):
    best = tmp_path / "best"
    records.save_model(tiny_model("bert", blocks=1), tokenizer, best, recipe=[], origin="tiny", seed=0)
    with pytest.raises(InvalidParameter, match=r"must hold an export, but .* has none; whet export .* --deploy"):
        whet.deploy(best, tmp_path / "out")
    whet.export(best, ["onnxruntime"], precisions=["int8"])
    assert whet.deploy(best, tmp_path / "only").target == "onnxruntime int8"  # though the weights would run in fp32
    with pytest.raises(InvalidParameter, match=r"must hold an export, but .* runs in PyTorch; whet export .* --deploy"):
        whet.deploy(best, tmp_path / "out", runtime="pytorch")
    whet.export(best, ["onnxruntime"], precisions=["fp32"])
    manifest = json.loads((best / "manifest.json").read_text())
    manifest["target"] = {"runtime": "onnxruntime", "precision": "int8"}
    (best / "manifest.json").write_text(json.dumps(manifest))
    run("export", best, "--deploy", tmp_path / "out", "--json")
    shown = json.loads(capsys.readouterr().out)
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert shown == {"folder": str(tmp_path / "out"), "target": "onnxruntime int8", "bytes": size}


def test_a_tokenizer_of_transformers_alone_is_refused(tmp_path, tokenizer):
    model = tmp_path / "model"
    records.save_model(classifier(blocks=1), tokenizer, model, recipe=[], origin="tiny", seed=0)
    whet.export(model, ["onnxruntime"])
    edit_json(model / "manifest.json", files={"config.json": digest(model / "config.json")})
    with pytest.raises(InvalidArtifact, match=r"must have a tokenizer.json to run without transformers, .* has none"):
        whet.deploy(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["serve.py", "serve_fastapi.py"])
def test_a_model_is_served(deployed, file, monkeypatch):
    pytest.importorskip("fastapi", reason="fastapi and httpx must be installed to serve a model")
    client = pytest.importorskip("starlette.testclient", reason="httpx must be installed to ask a server")
    monkeypatch.setenv("MODEL", str(deployed[1]))
    served = imported((deployed[1] if file == "serve.py" else EXAMPLES) / file)
    answer = client.TestClient(served.app).post("/predict", json={"texts": [TEXTS[0], ["w5", "w6"]]})
    predictor = whet.load(deployed[1])
    wanted = [predictor(TEXTS[0]), predictor(("w5", "w6"))]
    assert answer.status_code == 200 and [one["label"] for one in answer.json()] == [one.label for one in wanted]
    np.testing.assert_allclose([one["score"] for one in answer.json()], [one.score for one in wanted], atol=0.1)
    assert client.TestClient(served.app).post("/predict", json={"texts": [3]}).status_code == 422
    if file == "serve.py":
        assert client.TestClient(served.app).get("/health").json() == {"status": "ok"}


def test_a_pipeline_of_transformers_runs_it(deployed, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipeline.py", str(deployed[0]), *TEXTS])
    runpy.run_path(str(EXAMPLES / "pipeline.py"), run_name="__main__")
    labels = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert labels == [one.label for one in whet.load(deployed[0]).predict(TEXTS)]


@pytest.mark.filterwarnings("default")
def test_many_rows_are_labelled(deployed, tmp_path):
    ray = pytest.importorskip("ray", reason="ray must be installed to label many rows")
    pytest.importorskip("ray.data", reason="pyarrow must be installed to label many rows")
    import pyarrow
    from pyarrow import parquet

    texts = [f"w{5 + i % 90} w{5 + i // 90 % 90}" for i in range(10_000)]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "rows.parquet")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        imported(EXAMPLES / "million_rows.py").label(
            str(deployed[1]), str(tmp_path / "rows.parquet"), str(tmp_path / "out"), processes=1
        )
    finally:
        ray.shutdown()
    table = parquet.read_table(tmp_path / "out").to_pydict()
    assert sorted(table["text"]) == sorted(texts)
    some = dict(zip(table["text"], table["score"], strict=True))
    wanted = whet.load(deployed[1]).predict(texts[:100])
    np.testing.assert_allclose([some[text] for text in texts[:100]], [one.score for one in wanted], atol=0.1)


def test_the_container_copies_what_a_deployment_has(deployed):
    lines = (EXAMPLES / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {step for step, _ in steps} <= {"FROM", "WORKDIR", "RUN", "COPY", "USER", "ENV", "EXPOSE", "CMD"}
    [command] = [json.loads(rest) for step, rest in steps if step == "CMD"]
    assert command[:2] == ["uvicorn", "serve:app"]
    copied = [rest.split()[0] for step, rest in steps if step == "COPY"]
    assert all((deployed[1].parent / path).exists() for path in copied)
