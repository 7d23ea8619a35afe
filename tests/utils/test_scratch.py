import tempfile
from pathlib import Path

import pytest

from folders import tree
from whet.errors import OutputNotWritten
from whet.utils.scratch import temporary_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_nothing_stays(place: Path, error: type[BaseException] | None):
    with pytest.raises(error or SystemExit), temporary_folder() as folder:
        (folder / "a.txt").write_text("a")
        with temporary_folder() as other:
            assert other != folder and not list(other.iterdir())
        assert folder.is_relative_to(place)
        raise error or SystemExit
    assert tree(place) == {}


def test_what_dead_processes_left_is_removed_and_what_living_ones_use_is_not(place: Path):
    with temporary_folder() as used:
        (used / "a.txt").write_text("a")
        for name in ("dead", ".dead.lock", ".killed-early.lock"):
            (used.parent / name).mkdir() if name == "dead" else (used.parent / name).touch()
        (used.parent / "dead" / "model.onnx").write_text("x")
        with temporary_folder():
            assert (used / "a.txt").exists() and not (used.parent / "dead").exists()
        assert {path.name for path in used.parent.iterdir()} == {used.name, f".{used.name}.lock"}
    assert tree(place) == {}


def test_without_a_place_there_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch):
    with temporary_folder() as folder:
        home = folder.parent.name
    (place / home).symlink_to(place)
    for tempdir, message in (
        (place, r"must be a folder of your own, but it is not; set TMPDIR to another folder"),
        (place / "nowhere", r"must be a place for temporary files, but .*; set TMPDIR to a folder that can be written"),
    ):
        monkeypatch.setattr(tempfile, "tempdir", str(tempdir))
        with pytest.raises(OutputNotWritten, match=message), temporary_folder():
            raise AssertionError("the block must not run")
