"""A new runtime is one class: nothing else has to name it, and it works wherever runtimes do."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from folders import classifier, write_rows
from helpers import tiny_batches, tiny_model
from plugins import CODE, ENTRY_POINTS, install
from whet.cli import app
from whet.errors import InvalidArtifact, InvalidParameter, UnknownName
from whet.evaluation import records
from whet.methods.pruning.structure import BlockStructure
from whet.models import artifact
from whet.models.inference import predict_logits
from whet.runtimes.base import ExportRuntime, Runtime, all_runtimes, export_runtimes, runtime_named, search_runtimes
from whet.runtimes.export import load_unsaved
from whet.searching.targets import Target, targets
from whet.utils.lookup import members

TOY = "toy_runtime"
INSTALLED = "whet.runtimes"
DATA = ["--train-file", "train.csv", "--dev-file", "train.csv", "--text", "text"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package with a runtime, installed for one test."""
    monkeypatch.syspath_prepend(install(tmp_path / "site", CODE, {INSTALLED: ENTRY_POINTS[INSTALLED]}))
    members.cache_clear()
    yield
    members.cache_clear()
    sys.modules.pop("whet_toy", None)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line, and return what it prints."""

    def ran(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["whet", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main()
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return ran


def test_an_installed_runtime_is_exported_for_and_measured(toy, run, tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records.save_model(classifier(), tokenizer, Path("model"), recipe=[], origin="tiny", seed=0)
    write_rows(tmp_path / "train.csv", 40)
    before = artifact.model_digest(Path("model"))
    run("export", "model", "--to", TOY)
    assert artifact.exported(Path("model"), TOY).largest_difference < 1e-4
    assert (Path("model") / "model.toy").is_file()
    words = ["measure", "model", *DATA, "--runtime", f"pytorch,{TOY}", "--rounds", "6", "--json"]
    plain, other = json.loads(run(*words))
    assert [one["conditions"]["runtime"] for one in (plain, other)] == ["pytorch", TOY]
    [kl] = [one["value"] for one in other["measurements"] if one["metric"] == "kl"]
    assert kl < 1e-6 and other["name"] == f"model ({TOY})"
    assert artifact.model_digest(Path("model")) == before, "what a runtime reads is not the model's own"
    artifact.verify(Path("model"))


def test_an_installed_runtime_takes_part_in_searches_and_in_methods_that_time(toy):
    assert Target(TOY) in targets(None, None) and targets([TOY], None) == (Target(TOY),)
    assert BlockStructure(speedup=2, runtime=TOY).runtime == TOY


def test_without_the_package_its_name_is_unknown():
    with pytest.raises(UnknownName, match="the runtime must be a known name, but got 'toy_runtime'"):
        runtime_named(TOY)


def test_pytorch_and_torch_compile_are_runtimes_without_files(tmp_path):
    assert {"pytorch", "torch_compile"} <= all_runtimes().keys() - export_runtimes().keys()
    model = tiny_model("bert")
    for runtime in map(runtime_named, ("pytorch", "torch_compile")):
        assert runtime.supported(["int8"]) == ["fp32"] and runtime.files(tmp_path) == []
    assert runtime_named("pytorch").load(model, tmp_path, threads=1) is model


def test_every_model_is_compiled_however_many_there_are(tmp_path, monkeypatch):
    """torch's own limit is 8 models of one class, after which it runs them uncompiled."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    counters.clear()
    runtime = runtime_named("torch_compile")
    for width in range(2, 14):
        runtime.load(Widths(width), tmp_path, threads=1)(torch.ones(3, 4))
    assert counters["frames"]["ok"] == 12


class Widths(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = torch.nn.Linear(4, width), torch.nn.Linear(width, 2)

    def forward(self, values):
        return self.down(self.up(values))


def test_a_search_tries_pytorch_first_and_leaves_torch_compile_out():
    assert search_runtimes()[0] == "pytorch"
    assert set(search_runtimes()) == {name for name, runtime in all_runtimes().items() if runtime.for_search}
    assert "torch_compile" not in search_runtimes() and {"onnxruntime", "openvino"} <= set(search_runtimes())
    with pytest.raises(UnknownName, match="the runtime must be a known name, but got 'torch_compile'"):
        targets(["torch_compile"], None)


@pytest.mark.parametrize("name", sorted(export_runtimes()))
def test_what_is_exported_runs_on_the_cpu_alone(name: str, tmp_path):
    runtime = runtime_named(name)
    with pytest.raises(InvalidParameter, match=rf"{name} must run on the cpu, but got device=cuda:1; leave it out"):
        runtime.supported(["fp32"], device="cuda:1")
    with pytest.raises(InvalidArtifact, match=rf"a model that runs in {name} must be a folder that whet wrote"):
        runtime.files(tmp_path)


@pytest.mark.parametrize("name", search_runtimes())
def test_a_model_that_was_never_saved_runs_everywhere(name: str):
    model, batches = tiny_model("bert"), tiny_batches(seed=5, batch_size=3)
    runtime: Runtime = runtime_named(name)
    loaded = load_unsaved(model, runtime, batches=batches.batches)
    np.testing.assert_allclose(predict_logits(loaded, batches), predict_logits(model, batches), atol=1e-4)
    assert isinstance(runtime, ExportRuntime) != (loaded is model)
