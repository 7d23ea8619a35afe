"""Exports that are kept: the same inputs give the same files, whole or not at all, and never beside the model."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from folders import LABELS, classifier, edit_json, save, tree, write_rows
from whet.errors import OutputNotWritten
from whet.runtimes import export_cache as cached
from whet.runtimes.base import runtime_named
from whet.runtimes.export import CALIBRATION, ExportSettings, made_exports
from whet.runtimes.export_cache import ExportCache, export_cache
from whet.tasks.base import Task
from whet.tasks.own_data import task_from_files
from whet.utils.precision import FP32, INT8

ONNX = [(runtime_named("onnxruntime"), FP32)]


@pytest.fixture
def foreign(tmp_path, tokenizer) -> Path:
    return save(classifier(blocks=1), tokenizer, tmp_path / "model")


@pytest.fixture
def made(monkeypatch) -> list[tuple[str, str]]:
    """What is really exported, in order."""
    made: list[tuple[str, str]] = []

    def noted(model, chosen, draft, **others):
        for one in made_exports(model, chosen, draft, **others):
            made.append((one.runtime, one.precision))
            yield one

    monkeypatch.setattr(cached, "made_exports", noted)
    return made


def task(folder: Path, rows: int = 40) -> Task:
    return task_from_files(write_rows(folder / f"{rows}.csv", rows), text="text")


def folder_of(cache: ExportCache, model: Path, chosen=ONNX, **settings) -> Path:
    [found] = cache.folders(model, chosen, ExportSettings(held_out=False, **settings)).values()
    assert isinstance(found, Path)
    return found


def test_an_export_is_made_once_and_the_model_stays_as_it_is(foreign, made, tmp_path, capsys):
    before = tree(foreign)
    chosen = [*ONNX, (runtime_named("onnxruntime"), INT8)]
    with export_cache(tmp_path / "kept") as cache:
        found = cache.folders(foreign, chosen, ExportSettings())
        said = capsys.readouterr().err
        assert said.count("exporting model for onnxruntime fp32, onnxruntime int8, kept") == said.count("MiB") == 1
        assert str(tmp_path / "kept") in said
        assert cache.folders(foreign, chosen, ExportSettings()) == found and capsys.readouterr().err == ""
    assert made == [("onnxruntime", FP32), ("onnxruntime", INT8)] and tree(foreign) == before
    names = [sorted(path.name for path in folder.iterdir()) for folder in found.values()]
    assert names == [["export.json", "model.onnx"], ["export.json", "model_quantized.onnx"]]
    assert not list((tmp_path / "kept" / "exports").glob(".*"))


FAULTS = {
    "a file cut short": lambda folder: (folder / "model.onnx").write_bytes(b"x"),
    "an empty file, which ONNX can read": lambda folder: (folder / "model.onnx").write_bytes(b""),
    "a missing file": lambda folder: (folder / "model.onnx").unlink(),
    "no list": lambda folder: (folder / "export.json").unlink(),
    "a list of nothing": lambda folder: (folder / "export.json").write_text('{"files": {}}'),
    "a list that is none": lambda folder: (folder / "export.json").write_text("{"),
    "a file of another folder": lambda folder: edit_json(folder / "export.json", files={"../model.onnx": "0" * 64}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_export_is_made_anew(fault, foreign, made, tmp_path):
    with export_cache(tmp_path / "kept") as cache:
        folder = folder_of(cache, foreign)
        whole = tree(folder).keys()
        FAULTS[fault](folder)
        assert folder_of(cache, foreign) == folder
    assert len(made) == 2 and tree(folder).keys() == whole
    assert json.loads((folder / "export.json").read_text())["files"].keys() == {"model.onnx"}


def test_what_an_export_is_made_from_names_its_folder(foreign, tmp_path, tokenizer, monkeypatch):
    """Keys alone: nothing is exported."""
    calibrated = (runtime_named("openvino"), INT8)
    asked: list[Path] = []

    def place(model, missing, places, settings):
        asked.append(next(iter(places.values())))
        return dict(places)

    monkeypatch.setattr(cached, "_filled", place)
    same = shutil.copytree(foreign, tmp_path / "elsewhere")
    (same / "notes.txt").write_text("no load reads it")
    other = save(classifier(blocks=1, labels=LABELS[::-1]), tokenizer, tmp_path / "other")
    small = replace(CALIBRATION, examples=8)
    with export_cache(tmp_path / "kept") as cache:
        equal = {folder_of(cache, model, seed=seed, task=data) for model, seed, data in (
            (foreign, 0, None), (same, 0, None), (foreign, 1, None), (foreign, 0, task(tmp_path)),
        )}  # fmt: skip
        assert len(equal) == 1  # nothing is calibrated
        different = [
            folder_of(cache, foreign),
            folder_of(cache, other),
            folder_of(cache, foreign, [(runtime_named("onnxruntime"), INT8)]),
            folder_of(cache, foreign, opset=20),
            folder_of(cache, foreign, [calibrated], task=task(tmp_path)),
            folder_of(cache, foreign, [calibrated], task=task(tmp_path, 60)),
            folder_of(cache, foreign, [calibrated], task=task(tmp_path), seed=1),
            folder_of(cache, foreign, [calibrated], task=task(tmp_path), calibration=small),
        ]
        monkeypatch.setattr(cached, "versions", lambda *more: {"torch": "1"})
        different.append(folder_of(cache, foreign))
        edit_json(foreign / "tokenizer_config.json", model_max_length=7)
        different.append(folder_of(cache, foreign))
    assert len(set(different)) == len(different)


def test_two_at_once_make_it_once(foreign, made, tmp_path):
    with export_cache(tmp_path / "kept") as cache, ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: folder_of(cache, foreign), range(2)))
    assert len(set(folders)) == 1 and len(made) == 1


def test_a_failure_leaves_nothing_and_is_told(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr("whet.runtimes.export.TOLERANCE", 0.0)
    with export_cache(tmp_path / "kept") as cache:
        [failure] = cache.folders(foreign, ONNX, ExportSettings()).values()
    assert "must give the model's own answers to 0" in str(failure) and not (tmp_path / "kept").exists()


def test_a_home_that_cannot_be_written_gives_way_to_a_temporary_folder(foreign, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WHET_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(cached, "can_write", lambda folder: False)
    with export_cache() as cache:
        folder = folder_of(cache, foreign)
        assert (folder / "model.onnx").is_file()
    assert not folder.exists() and not (tmp_path / "home").exists()
    assert (
        "home/exports cannot be written, so exports are kept in a temporary folder; --cache" in capsys.readouterr().err
    )
    with pytest.raises(OutputNotWritten, match=r"the cache must be a folder that can be written, but got .*mine; name"):
        export_cache(tmp_path / "mine").__enter__()


def test_the_environment_says_where_the_cache_is(tmp_path, monkeypatch):
    def place() -> Path:
        with export_cache() as cache:
            return cache.folder.parent

    monkeypatch.setenv("WHET_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert place() == tmp_path / "a"
    monkeypatch.delenv("WHET_CACHE")
    assert place() == tmp_path / "b" / "whet"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert place() == tmp_path / "c" / ".cache" / "whet"
