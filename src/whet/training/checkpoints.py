"""What an interrupted training leaves in its working folder: whose run it was, and its last whole checkpoint.

A checkpoint is whole once the trainer's state lies in it, which is written last.
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

__all__ = ["claim", "last_checkpoint", "writing"]

STATE = "trainer_state.json"


def last_checkpoint(scratch: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, if there is one."""
    found = scratch.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    steps = {int(number): one for one in found if (number := one.name.rpartition("-")[2]).isdigit()}
    return next((steps[step] for step in sorted(steps, reverse=True) if _is_whole(steps[step])), None)


def claim(scratch: Path, wanted: dict[str, Any]) -> None:
    """Say in `scratch` whose checkpoints it holds; without a checkpoint there is nothing to be told apart.

    Raises:
        InvalidParameter: it holds those of another run.
    """
    record = scratch / "settings.json"
    if last_checkpoint(scratch) and record.is_file() and (held := json.loads(record.read_text())) != wanted:
        others = ", ".join(f"{key}={value}" for key, value in wanted.items() if held.get(key) != value)
        raise InvalidParameter(
            f"an interrupted run must go on with its own settings, but got {others}, which {record} does not hold; "
            f"give those, or delete {scratch}"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(wanted, indent=1))


@contextmanager
def writing(scratch: Path) -> Iterator[None]:
    """Say so where a checkpoint cannot be written, and leave nothing that is not worth keeping.

    Raises:
        OutputNotWritten: in the place of what the writers raise.
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
            f"{scratch} must be writable to its end, but {error}; free some space and call it again"
        ) from error


def _is_whole(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / STATE))
    except (OSError, ValueError):
        return False
    return True
