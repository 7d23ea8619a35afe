"""The predictor answers as the measured model does, in each of its forms, and where there is no torch."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import whet
from folders import classifier, edit_json, save
from helpers import tiny_model
from whet.errors import InvalidArtifact, InvalidModel, InvalidParameter
from whet.evaluation import records
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import predict_logits
from whet.run import predictor as predictor_module
from whet.run import target as target_module
from whet.run.kinds import base
from whet.tasks.data import Examples
from whet.tasks.encoding import encode

TEXTS = [" ".join(f"w{5 + (i * j) % 90}" for j in range(1, 2 + (7 * i) % 50)) for i in range(20)]
PAIRS = [(text, TEXTS[-1 - i]) for i, text in enumerate(TEXTS)]
FORMS = [("onnxruntime", "fp32"), ("openvino", "fp32"), ("pytorch", "fp32")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer) -> Path:
    """A classifier with token types, exported for all runtimes."""
    folder = tmp_path_factory.mktemp("run") / "model"
    records.save_model(classifier(blocks=1), tokenizer, folder, recipe=[], origin="tiny", seed=0)
    whet.export(folder, ["onnxruntime", "openvino"])
    whet.export(folder, ["onnxruntime"], precisions=["int8"])
    return folder


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """One that a test may change."""
    return shutil.copytree(exported, tmp_path / "model")


def measured_logits(
    folder: Path, texts: list[str], pairs: list[str] | None = None, *, max_length: int = 40
) -> np.ndarray:
    """What `whet measure` computes."""
    model, tokenizer = load_with_tokenizer(folder)
    return predict_logits(
        model, encode(Examples(texts, [0] * len(texts), pairs), tokenizer, max_length=max_length, batch_size=7)
    )


@pytest.mark.parametrize(("runtime", "precision"), FORMS)
def test_logits_are_those_that_were_measured(exported, runtime, precision):
    predictor = whet.load(exported, runtime=runtime, precision=precision, batch_size=3)
    assert predictor.target == (runtime if runtime == "pytorch" else f"{runtime} {precision}")
    np.testing.assert_allclose(predictor.logits(TEXTS), measured_logits(exported, TEXTS), atol=1e-4)
    pairs = measured_logits(exported, *map(list, zip(*PAIRS, strict=True)))
    np.testing.assert_allclose(predictor.logits(PAIRS), pairs, atol=1e-4)
    mixed = predictor.logits([*TEXTS, *PAIRS])
    np.testing.assert_allclose(mixed[1::2], np.concatenate([predictor.logits(TEXTS), pairs])[1::2], atol=1e-4)


def test_int8_batches_of_one_do_not_depend_on_other_texts(exported):
    predictor = whet.load(exported, precision="int8", batch_size=1)
    np.testing.assert_array_equal(predictor.logits(TEXTS)[3:5], predictor.logits(TEXTS[3:5]))


@pytest.mark.parametrize(("runtime", "precision"), [*FORMS, ("onnxruntime", "int8")])
def test_threads_do_not_disturb_each_other(exported, runtime, precision):
    predictor = whet.load(exported, runtime=runtime, precision=precision, threads=1, batch_size=1)
    alone = [predictor.logits(text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(predictor.logits, TEXTS * 5))
    np.testing.assert_allclose(np.concatenate(together), np.concatenate(alone * 5), atol=1e-5)


def test_predictions_are_probabilities_of_the_labels(exported):
    predictor = whet.load(exported)
    one, several = predictor(TEXTS[0]), predictor(TEXTS)
    assert [*one.scores] == ["no", "yes"] == [*predictor.labels]
    np.testing.assert_allclose(sum(one.scores.values()), 1)
    assert one.label == max(one.scores, key=lambda name: one.scores[name]) and one.score == one.scores[one.label]
    logits = predictor.logits(TEXTS).astype(float)
    np.testing.assert_allclose([one.scores["yes"] for one in several], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
    assert predictor(PAIRS[0]) == predictor.predict([PAIRS[0]])[0]
    assert predictor([]) == [] and predictor.scores([]).shape == (0, 2)


def test_a_regressor_gives_its_score(tmp_path, tokenizer):
    folder = save(classifier(labels=("score",), blocks=1), tokenizer, tmp_path / "m")
    with pytest.raises(InvalidModel, match="which may be a regressor or a reranker; say which"):
        whet.load(folder)
    predictor = whet.load(folder, kind="regression")
    [one] = predictor.predict(TEXTS[1])
    assert one.label == "score" and one.scores == {"score": one.score}
    with torch.inference_mode():
        wanted = predictor.model(**tokenizer(TEXTS[1], return_tensors="pt", truncation=True)).logits
    assert one.score == pytest.approx(float(wanted), rel=1e-5)


def test_a_folder_of_others_runs_in_pytorch(tmp_path, tokenizer):
    folder = save(tiny_model("gpt2", blocks=1), tokenizer, tmp_path / "m")
    predictor = whet.load(folder)
    assert predictor.target == "pytorch" and predictor.model.config.model_type == "gpt2"
    np.testing.assert_allclose(predictor.logits(TEXTS), measured_logits(folder, TEXTS), atol=1e-4)
    with pytest.raises(InvalidParameter, match=r"must be exported .* has no onnxruntime; it has pytorch; whet export"):
        whet.load(folder, runtime="onnx")


def test_texts_beyond_the_window_keep_their_order(exported, monkeypatch):
    whole = whet.load(exported).logits(TEXTS)
    monkeypatch.setattr(base, "WINDOW", 2)
    np.testing.assert_allclose(whet.load(exported, batch_size=3).logits(iter(TEXTS)), whole, atol=1e-5)


# which form runs


def row(runtime: str, precision: str, latency: float, max_length: int = 16) -> str:
    conditions = {"runtime": runtime, "precision": precision, "max_length": max_length}
    return (
        json.dumps({"conditions": conditions, "measurements": [{"metric": "latency_median", "value": latency}]}) + "\n"
    )


def test_fp32_runs_where_nothing_was_measured(folder, monkeypatch):
    assert whet.load(folder).target == "onnxruntime fp32" and whet.load(folder).max_length == 40
    without(monkeypatch, "onnxruntime")
    assert whet.load(folder).target == "openvino fp32"
    without(monkeypatch, "onnxruntime", "openvino")
    assert whet.load(folder).target == "pytorch"


def test_the_fastest_that_was_measured_runs_as_it_was_measured(folder, monkeypatch):
    (folder / "measurements.jsonl").write_text(
        row("onnxruntime", "fp32", 1, 12) + row("onnxruntime", "int8", 2, 14) + row("openvino", "fp32", 3) + "{torn\n[]"
    )
    assert whet.load(folder).target == "onnxruntime fp32" and whet.load(folder).max_length == 12
    (folder / "measurements.jsonl").write_text(row("onnxruntime", "fp32", 3, 12) + row("onnxruntime", "int8", 2, 14))
    predictor = whet.load(folder)
    assert predictor.target == "onnxruntime int8" and predictor.max_length == 14
    assert whet.load(folder, precision="fp32").target == "onnxruntime fp32"
    assert whet.load(folder, max_length=20).max_length == 20 and whet.load(folder, max_length=99).max_length == 40


def test_a_target_is_kept_or_refused(folder, monkeypatch):
    edit_json(folder / "manifest.json", target={"runtime": "openvino", "precision": "fp32"})
    (folder / "measurements.jsonl").write_text(row("onnxruntime", "int8", 1))
    assert whet.load(folder).target == "openvino fp32"
    assert whet.load(folder, runtime="onnxruntime").target == "onnxruntime int8"
    without(monkeypatch, "openvino")
    with pytest.raises(InvalidParameter, match=r"openvino fp32 must be installed .* got no openvino; pip install"):
        whet.load(folder)


def without(monkeypatch, *packages: str) -> None:
    monkeypatch.setattr(target_module, "find_spec", lambda name: None if name in packages else object())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"runtime": "tensorrt"},
            "the runtime must be one of onnxruntime, openvino, pytorch, but got runtime='tensorrt'",
        ),
        ({"runtime": "openvino", "precision": "int8"}, "has no openvino int8; it has onnxruntime fp32, openvino fp32,"),
        ({"threads": 0}, "1 <= threads must hold, but got threads=0"),
        ({"batch_size": 2.5}, "batch_size must be of type int, but got batch_size=2.5"),
        ({"max_length": 3}, "max_length must leave room"),
    ],
)
def test_what_cannot_be_is_a_sentence(exported, arguments, words):
    with pytest.raises(InvalidParameter, match=words):
        whet.load(exported, **arguments)


@pytest.mark.parametrize("text", [None, 3, "\ud83d", ("a",), ("a", "b", "c"), ("a", None), ["a", "b"]])
def test_what_is_no_text_is_named(exported, text):
    with pytest.raises(
        InvalidParameter, match=r"^texts must be texts, or pairs of them as tuples, but got texts\[1\]="
    ):
        whet.load(exported)(["a", text])


def test_several_texts_in_a_tuple_are_told_to_be_a_list(exported):
    """Two would be taken for a pair."""
    with pytest.raises(InvalidParameter, match=r"give several texts as a list$"):
        whet.load(exported)(("a", "b", "c"))


def test_a_search_is_told_from_its_best(tmp_path):
    (tmp_path / "search.json").touch()
    with pytest.raises(InvalidModel, match=r"its best model is in .*best"):
        whet.load(tmp_path)


def test_what_is_nowhere_is_not_looked_for_in_pytorch(monkeypatch):
    with pytest.raises(InvalidModel, match="the model must be a folder, but got no/where, which does not exist"):
        whet.load("no/where", runtime="onnxruntime")
    without(monkeypatch, "torch")
    with pytest.raises(InvalidModel, match="the model must be a folder, but got no/where, which does not exist"):
        whet.load("no/where")


# files are those that were saved


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_an_altered_file_is_refused(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(InvalidArtifact, match=rf"{name} was truncated or altered"):
        whet.load(folder, runtime="onnxruntime", precision="fp32")


@pytest.mark.parametrize("change", ["name", "files", "model", "text", "export of another"])
def test_a_manifest_leads_nowhere_else(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["exports"]["onnxruntime fp32"]
    if change == "name":
        entry["files"] = {"../model.onnx": entry["files"]["model.onnx"]}
    if change == "files":
        manifest["files"] = [*manifest["files"]]
    if change == "model":
        del entry["model"]
    if change == "export of another":
        entry["model"] = "0" * 64
    text = "{" if change == "text" else json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InvalidArtifact, match=r"must be as whet wrote it|must be a JSON file|must belong to the model"):
        whet.load(folder, runtime="onnxruntime", precision="fp32")


# without torch

BLOCKED = ("torch", "transformers", "pydantic", "scipy", "pandas", "yaml", "rich", "psutil", "safetensors", "cyclopts")
CODE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import whet, whet.run
for runtime in ("onnxruntime", "openvino"):
    print(whet.run.load(sys.argv[1], runtime=runtime, precision="fp32").logits(sys.argv[2:]).tolist())
try:
    whet.compress
except ImportError as error:
    print(error)
assert not set({blocked}) & set(sys.modules)
"""


def test_neither_torch_nor_transformers_is_needed(exported):
    code = CODE.format(blocked=BLOCKED)
    done = subprocess.run([sys.executable, "-c", code, exported, *TEXTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *logits, said = done.stdout.splitlines()
    for line in logits:
        np.testing.assert_allclose(json.loads(line), measured_logits(exported, TEXTS), atol=1e-4)
    assert "pip install 'whet[compress]'" in said


def test_a_container_s_share_of_the_processors_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(predictor_module.os, "sched_getaffinity", lambda pid: range(16))
    monkeypatch.setattr(predictor_module, "_QUOTA", tmp_path / "cpu.max")
    for quota, cores in (
        (None, 16),
        ("max 100000", 16),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("9900000 100000", 16),
    ):
        if quota:
            (tmp_path / "cpu.max").write_text(quota + "\n")
        assert predictor_module.usable_cores() == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert predictor_module.usable_cores() == 3
