"""The rows of a benchmark: models that have no export get one, and deployments are measured where they run."""

from pathlib import Path

import pytest

import whet
from folders import classifier, edit_json, save, tree, write_rows
from whet.errors import InvalidArtifact, InvalidParameter, MissingResource
from whet.evaluation import records
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.rows import BenchmarkRow, deployments, rows_of
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.runtimes.base import export_runtimes
from whet.tasks.own_data import task_from_files

QUICK = {"batch_size": 8, "rounds": 6, "singles": 2, "timed": 8, "metrics": ("size", "fidelity")}


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer) -> Path:
    """A model that transformers saved, the same as an artifact, and data."""
    root = tmp_path_factory.mktemp("rows")
    save(classifier(blocks=1), tokenizer, root / "foreign")
    records.save_model(classifier(blocks=1), tokenizer, root / "own", recipe=[], origin="x", seed=0)
    write_rows(root / "train.csv", 60)
    write_rows(root / "dev.csv", 40, seed=1)
    return root


def names(trials: list[Trial]) -> list[str]:
    return [one.name for one in trials]


@pytest.mark.parametrize("source", ["foreign", "own"])
def test_one_call_shows_what_runtimes_alone_give(source, root):
    """The rows of one call: every runtime and precision, with the answers and the size of its own files."""
    before = tree(root / source)
    task = task_from_files(root / "train.csv", root / "dev.csv", text="text")
    places = {"runtimes": ("pytorch", "onnxruntime", "openvino"), "precisions": ("fp32", "int8")}
    trials = Benchmark(**QUICK, **places).run([root / source], task)
    assert names(trials) == [
        source,
        f"{source} (onnxruntime)",
        f"{source} (onnxruntime int8)",
        f"{source} (openvino)",
        f"{source} (openvino int8)",
    ]
    for trial in trials[1:]:
        assert trial.get("kl").value < (1e-6 if trial.conditions["precision"] == "fp32" else 0.1)
    sizes = [trial.get("disk").value for trial in trials]
    assert sizes[2] < sizes[1] and sizes[4] < sizes[3]
    assert tree(root / source) == before


def test_a_row_without_calibration_data_is_left_out(root, capsys):
    task = task_from_files(dev_file=root / "dev.csv", text="text")
    places = {"runtimes": ("onnxruntime", "openvino"), "precisions": ("fp32", "int8")}
    trials = Benchmark(**QUICK, **places).run([root / "foreign"], task)
    assert names(trials) == [f"foreign ({place})" for place in ("onnxruntime", "onnxruntime int8", "openvino")]
    told = capsys.readouterr().err
    assert "foreign in openvino int8 is left out: int8 in openvino must be calibrated on training data, but got" in told
    with pytest.raises(MissingResource, match=r"must be calibrated on training data, but got none; give --train-file"):
        Benchmark(**QUICK, runtimes=("openvino",), precisions=("int8",)).run([root / "foreign"], task)


def test_a_model_that_a_runtime_cannot_run_loses_its_row_alone(root, capsys, monkeypatch, tmp_path):
    def fail(self, conversion, folder):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(export_runtimes()["openvino"], "convert", fail)
    task = task_from_files(dev_file=root / "dev.csv", text="text")
    benchmark = Benchmark(**QUICK, runtimes=("pytorch", "openvino"), cache=tmp_path)
    assert names(benchmark.run([root / "foreign"], task)) == ["foreign"]
    assert "note: foreign in openvino is left out: no such operator" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="no such operator"):
        benchmark.compare([BenchmarkRow(root / "foreign"), BenchmarkRow(root / "foreign", "openvino")], task)


def with_exports(root: Path, folder: Path, tokenizer, **entries) -> Path:
    """An artifact that says it has exports; their files hold nothing that runs."""
    records.save_model(classifier(blocks=1), tokenizer, folder, recipe=[], origin="x", seed=0)
    for runtime, precision, name in (
        ("onnxruntime", "fp32", "model.onnx"),
        ("openvino", "int8", "openvino_model_int8.xml"),
    ):
        (folder.parent / name).write_bytes(b"")
        artifact.add_export(folder, runtime, precision, [folder.parent / name], {})
    edit_json(folder / "manifest.json", **entries)
    return folder


TARGETS = {
    "none": ({}, ["onnxruntime fp32", "openvino int8"]),
    "an export": ({"target": {"runtime": "openvino", "precision": "int8"}}, ["openvino int8"]),
    "pytorch": ({"target": {"runtime": "pytorch", "precision": "fp32"}}, []),
    "an export that is not there": (
        {"target": {"runtime": "openvino", "precision": "bf16"}},
        ["onnxruntime fp32", "openvino int8"],
    ),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_folder_runs_where_it_was_chosen_for_or_else_where_it_was_exported_for(
    kind, root, tmp_path, tokenizer, monkeypatch
):
    for runtime in export_runtimes().values():
        monkeypatch.setattr(runtime, "all_read", lambda self, folder, precision: set())
    entries, wanted = TARGETS[kind]
    folder = with_exports(root, tmp_path / "m", tokenizer, **entries)
    assert [f"{row.runtime} {row.precision}" for row in deployments(folder)] == wanted
    rows = rows_of([root / "foreign", folder], None, ("fp32",), device="cpu")
    assert [row.runtime for row in rows] == ["pytorch", "pytorch", *(place.split()[0] for place in wanted)]
    assert all(row.runtime == "pytorch" for row in rows_of([folder], ["pytorch"], ("fp32",), device="cpu"))


def test_a_deployment_that_cannot_run_here_is_left_out(root, tmp_path, tokenizer, capsys, monkeypatch):
    folder = with_exports(root, tmp_path / "m", tokenizer)
    (folder / "model.onnx").write_bytes(b"others'")
    monkeypatch.setattr(export_runtimes()["openvino"], "package", "no_such_package")
    assert deployments(folder) == []
    told = capsys.readouterr().err
    assert "m in onnxruntime is left out: the export for onnxruntime must belong to the weights beside it" in told
    assert "m in openvino int8 is left out: openvino needs the package no_such_package" in told
    with pytest.raises(InvalidArtifact, match="must belong to the weights beside it"):  # asked for, it is an error
        Benchmark(**QUICK, runtimes=("onnxruntime",)).run([folder], task_from_files(root / "train.csv", text="text"))


def test_precisions_need_runtimes_and_those_of_other_processors_are_left_out(root, capsys, monkeypatch):
    with pytest.raises(InvalidParameter, match=r"--precision must go with --runtime, but got int8 alone; add"):
        Benchmark(precisions=("int8",))
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    rows = rows_of([root / "foreign"], ["openvino"], ("fp32", "bf16"), device="cpu")
    assert [row.precision for row in rows] == ["fp32"]
    assert "note: openvino bf16 is left out: the processor must have bf16 instructions" in capsys.readouterr().err
    with pytest.raises(InvalidParameter, match="must have bf16 instructions"):
        rows_of([root / "foreign"], ["openvino"], ("bf16",), device="cpu")


def test_measure_keeps_each_row_in_the_folder_that_it_is_of(root, tmp_path, tokenizer):
    """The deployment of the second model is a third row, which is not the first model's."""
    for name in ("one", "two"):
        records.save_model(classifier(blocks=1), tokenizer, tmp_path / name, recipe=[], origin="x", seed=0)
    whet.export(tmp_path / "two", ["onnxruntime"])
    task = task_from_files(dev_file=root / "dev.csv", text="text")
    trials = whet.measure([tmp_path / "one", tmp_path / "two"], task, benchmark=Benchmark(**QUICK))
    assert names(trials) == ["one", "two", "two (onnxruntime)"]
    assert names(records.trials(tmp_path / "one")) == ["one"]
    assert names(records.trials(tmp_path / "two")) == ["two", "two (onnxruntime)"]
