import json
from pathlib import Path

import pytest

from whet.errors import InvalidParameter
from whet.training.checkpoints import claim_folder, last_checkpoint


def checkpoint(scratch: Path, step: int, state: str | None = "{}") -> Path:
    """Make a checkpoint; without a state, or with half of one, it was never finished."""
    folder = scratch / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    return folder


def test_the_last_checkpoint_is_the_newest_complete_one(tmp_path):
    assert last_checkpoint(tmp_path / "missing") is None
    (tmp_path / "checkpoint-last").mkdir()
    assert last_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 90)
    newest = checkpoint(tmp_path, 100)
    checkpoint(tmp_path, 150, state=None)
    checkpoint(tmp_path, 200, state='{"epoch": 1, "log_his')
    checkpoint(tmp_path, 250, state="")
    assert last_checkpoint(tmp_path) == newest


def test_a_folder_without_a_complete_checkpoint_takes_any_run(tmp_path):
    claim_folder(tmp_path, {"seed": 0})
    checkpoint(tmp_path, 50, state=None)
    claim_folder(tmp_path, {"seed": 1})
    checkpoint(tmp_path, 100)
    with pytest.raises(InvalidParameter, match=r"with its own settings, but got seed=2, which .* does not hold; give"):
        claim_folder(tmp_path, {"seed": 2})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 1}
