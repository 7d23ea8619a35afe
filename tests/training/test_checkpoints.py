import json
import os
from pathlib import Path

import pytest

from whet.errors import InvalidModel, InvalidParameter, OutputExists, OutputNotWritten
from whet.training.checkpoints import (
    claim_folder,
    complete_checkpoint,
    discard,
    guarding_checkpoints,
    last_checkpoint,
    new_checkpoint,
    scratch_of,
)

FILES = ("model.safetensors", "optimizer.safetensors", "process-0.safetensors", "trainer_state.json")


def checkpoint(scratch: Path, step: int, *, seed: int = 0, whole: bool = True) -> Path:
    """Make a checkpoint, beside the others; one that is not whole was never finished."""
    folder = scratch.with_name("alone") / f"checkpoint-{step}"
    new_checkpoint(folder)
    for name in FILES:
        (folder / name).write_text(f"{name} at step {step}")
    if whole:
        complete_checkpoint(folder, {"seed": seed})
    scratch.mkdir(exist_ok=True)
    return folder.rename(scratch / folder.name)


@pytest.fixture
def scratch(tmp_path) -> Path:
    return tmp_path / ".out.training"


def test_the_last_checkpoint_is_the_newest_whole_one(scratch, capsys):
    assert last_checkpoint(scratch) is None
    (scratch / "checkpoint-last").mkdir(parents=True)
    assert last_checkpoint(scratch) is None
    checkpoint(scratch, 90)
    newest = checkpoint(scratch, 100)
    checkpoint(scratch, 150, whole=False)
    assert last_checkpoint(scratch) == newest == claim_folder(scratch, {"seed": 0})
    assert capsys.readouterr().err == (
        f"note: not every checkpoint in {scratch} is whole: checkpoint-150 was not written to its end; "
        "the training goes on from checkpoint-100\n"
    )


def test_a_whole_checkpoint_replaces_those_before_it(scratch):
    for step in (50, 100):
        checkpoint(scratch, step)
    new_checkpoint(scratch / "checkpoint-150")
    complete_checkpoint(scratch / "checkpoint-150", {})
    assert [path.name for path in scratch.iterdir()] == ["checkpoint-150"]


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.with_name("elsewhere")))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    **{f"{change.__name__} {name}": (change, name) for change in (shorten, flip, Path.unlink) for name in FILES},
    "link": (link, FILES[0]),
    "pipe": (pipe, FILES[0]),
    "an added file": (Path.touch, "optimizer.pt"),
    "half a list": (shorten, "complete.json"),
    "no list": (Path.unlink, "complete.json"),
    "another list": (lambda path: path.write_text('{"files": [1]}'), "complete.json"),
    "a deep list": (lambda path: path.write_text("[" * 100_000), "complete.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("alone", [True, False])
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(scratch, capsys, damage, alone):
    before = None if alone else checkpoint(scratch, 50)
    change, name = DAMAGES[damage]
    change(checkpoint(scratch, 100) / name)
    assert claim_folder(scratch, {"seed": 0}) == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"note: not every checkpoint in {scratch} is whole: checkpoint-100 ")
    assert said.endswith("starts anew\n" if alone else "goes on from checkpoint-50\n")


def test_only_the_same_run_resumes(scratch, capsys):
    claim_folder(scratch, {"seed": 0})
    checkpoint(scratch, 50, whole=False)
    assert claim_folder(scratch, {"seed": 1}) is None
    newest = checkpoint(scratch, 100, seed=1)
    assert claim_folder(scratch, {"seed": 1}) == newest
    told = r"with its own settings, but got {}, which .*complete\.json does not hold; give .*, or give --overwrite"
    with pytest.raises(InvalidParameter, match=told.format("seed=2")):
        claim_folder(scratch, {"seed": 2})
    with pytest.raises(InvalidParameter, match=told.format("seed=None")):
        claim_folder(scratch, {})
    assert last_checkpoint(scratch) == newest
    capsys.readouterr()
    assert claim_folder(scratch, {"seed": 2}, overwrite=True) is None
    assert capsys.readouterr().err == f"note: the interrupted run in {scratch} had other settings; it is thrown away\n"
    assert not list(scratch.iterdir())


def test_values_that_json_writes_otherwise_are_the_same(scratch):
    folder = scratch / "checkpoint-1"
    new_checkpoint(folder)
    complete_checkpoint(folder, {"layers": (1, 2)})
    assert claim_folder(scratch, {"layers": (1, 2)}) == folder


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.parent), os.mkfifo])
def test_checkpoints_need_a_folder(tmp_path, make):
    assert scratch_of(tmp_path / "out") == tmp_path / ".out.training"
    make(tmp_path / ".out.training")
    with pytest.raises(OutputExists, match=r"a folder of its own, but .*training is a file or a link; move it away"):
        scratch_of(tmp_path / "out")


def test_a_run_is_removed_with_nothing_else(scratch):
    checkpoint(scratch, 50)
    (scratch / "mine.csv").touch()
    (scratch / "settings.json").touch()  # of an older version
    discard(scratch)
    assert [path.name for path in scratch.iterdir()] == ["mine.csv"]
    (scratch / "mine.csv").unlink()
    discard(scratch)
    assert not scratch.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), InvalidModel("nan")])
def test_a_failed_run_leaves_whole_checkpoints_alone(scratch, error):
    newest = checkpoint(scratch, 50)
    checkpoint(scratch, 100, whole=False)
    told = OutputNotWritten if isinstance(error, OSError) else type(error)
    with pytest.raises(told), guarding_checkpoints(scratch):
        raise error
    assert list(scratch.iterdir()) == [newest]
    assert json.loads((newest / "complete.json").read_text())["settings"] == {"seed": 0}


def test_digests_are_told_only_where_nothing_else_differs(scratch):
    folder = scratch / "checkpoint-1"
    new_checkpoint(folder)
    complete_checkpoint(folder, {"model_sha256": "12", "seed": 0})
    for settings, told in (
        ({"model_sha256": "34", "seed": 1}, "seed=1"),
        ({"model_sha256": "34", "seed": 0}, "model_sha256=34"),
    ):
        with pytest.raises(InvalidParameter, match=f"but got {told}, which"):
            claim_folder(scratch, settings)
