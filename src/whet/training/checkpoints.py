"""The working folder of a training run: the run's settings, and its last complete checkpoint.

A checkpoint is complete once it holds the trainer's state, which is written last.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from whet.errors import InvalidModel, InvalidParameter, OutputNotWritten
from whet.utils.files import write_text

__all__ = ["claim_folder", "guarding_checkpoints", "last_checkpoint"]

STATE = "trainer_state.json"


def last_checkpoint(scratch: Path) -> Path | None:
    """Return the newest complete checkpoint in `scratch`, or None."""
    folders = scratch.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    steps = {int(number): folder for folder in folders if (number := folder.name.rpartition("-")[2]).isdigit()}
    return next((steps[step] for step in sorted(steps, reverse=True) if _is_complete(steps[step])), None)


def claim_folder(scratch: Path, settings: dict[str, Any]) -> None:
    """Record a run's settings in `scratch`, so that only the same run resumes from its checkpoints.

    A folder without a checkpoint takes any settings.

    Raises:
        InvalidParameter: `scratch` holds the checkpoints of a run with other settings.
    """
    record = scratch / "settings.json"
    if last_checkpoint(scratch) and record.is_file() and (recorded := json.loads(record.read_text())) != settings:
        changed = ", ".join(f"{key}={value}" for key, value in settings.items() if recorded.get(key) != value)
        raise InvalidParameter(
            f"an interrupted run must resume with its own settings, but got {changed}, which {record} does not hold; "
            f"give the settings of that file, or delete {scratch}"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(settings, indent=1))


@contextmanager
def guarding_checkpoints(scratch: Path) -> Iterator[None]:
    """Report checkpoints that cannot be written, and delete `scratch` if a failed run leaves no checkpoint.

    Raises:
        OutputNotWritten: instead of the errors of the libraries that write checkpoints.
    """
    try:
        yield
    except InvalidModel:
        if last_checkpoint(scratch) is None:
            shutil.rmtree(scratch)
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch's own writer says nothing else when the disk is full
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        raise OutputNotWritten(
            f"{scratch} must be writable to its end, but {error}; free some disk space and run it again"
        ) from error


def _is_complete(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / STATE))
    except (OSError, ValueError):
        return False
    return True
