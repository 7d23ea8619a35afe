"""The working folder of a training run, which holds its last whole checkpoint.

A checkpoint is whole if it holds exactly the files of its list, each with its digest. The list is written last, and
records the run's settings: only the same run resumes from it.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from transformers.trainer_callback import TrainerState

from whet.errors import InvalidModel, InvalidParameter, OutputExists, WhetError
from whet.utils.files import digest, not_written, write_text
from whet.utils.progress import note

__all__ = [
    "checkpoint_folder",
    "claim_folder",
    "complete_checkpoint",
    "discard",
    "guarding_checkpoints",
    "is_finished",
    "last_checkpoint",
    "new_checkpoint",
    "scratch_of",
    "state_of",
]

LIST, STATE = "complete.json", "trainer_state.json"
PREFIX = "checkpoint-"
SETTINGS = "settings.json"
"""Older versions of whet wrote the settings into a file of their own."""


class _Contents(BaseModel):
    """The list of a checkpoint's files, and the run that wrote it."""

    files: dict[str, str]
    """The SHA-256 of each file, by name."""
    settings: dict[str, Any]
    """Everything that must be equal for a run to resume from it."""


def scratch_of(out: Path) -> Path:
    """Return the working folder of the run that makes `out`.

    Raises:
        OutputExists: there is something else in its place.
    """
    target = out.resolve()
    scratch = target.with_name(f".{target.name}.training")
    if scratch.is_symlink() or (scratch.exists() and not scratch.is_dir()):
        raise OutputExists(
            f"a training keeps its checkpoints in a folder of its own, but {scratch} is a file or a link; "
            "move it away or name another output"
        )
    return scratch


def last_checkpoint(scratch: Path) -> Path | None:
    """Return the newest whole checkpoint in `scratch`, or None."""
    return next((folder for folder in _newest_first(scratch) if _fault(folder) is None), None)


def claim_folder(scratch: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Path | None:
    """Make `scratch` ready for a run, and return the checkpoint that it resumes from, or None.

    A checkpoint that is not whole is passed over with a sentence.

    Args:
        scratch: the working folder.
        settings: everything that must be equal for a run to resume, as JSON has it.
        overwrite: whether a run with other settings is thrown away.

    Raises:
        InvalidParameter: `scratch` holds a run with other settings.
        OutputNotWritten: the folder cannot be made or read.
    """
    try:
        last = _last_of(scratch, settings, overwrite=overwrite)
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(scratch, error) from error
    return last


def _last_of(scratch: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Path | None:
    faults: list[str] = []
    last = None
    for folder in _newest_first(scratch):
        if (fault := _fault(folder)) is None:
            last = folder
            break
        faults.append(f"{folder.name} {fault}")
    if last is not None:
        changed = _changes(_contents(last).settings, json.loads(json.dumps(settings)))
        if changed and not overwrite:
            raise InvalidParameter(
                f"an interrupted run must resume with its own settings, but got {changed}, which {last / LIST} does "
                "not hold; give the settings of that file, or give --overwrite to throw the run away"
            )
        if changed:
            note(f"the interrupted run in {scratch} had other settings; it is thrown away")
            discard(scratch)
            return None
    if faults:
        step = f"goes on from {last.name}" if last else "starts anew"
        note(f"not every checkpoint in {scratch} is whole: {', '.join(faults)}; the training {step}")
    return last


def new_checkpoint(folder: Path) -> None:
    """Make the folder of a checkpoint, without what a killed run left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def complete_checkpoint(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the list of a checkpoint's files, and remove the checkpoints before it.

    Args:
        folder: the checkpoint, with all its files.
        settings: the settings of the run.
    """
    files = {path.name: digest(path) for path in folder.iterdir()}
    write_text(folder / LIST, _Contents(files=files, settings=dict(settings)).model_dump_json(indent=1))
    for older in _newest_first(folder.parent):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)


def state_of(checkpoint: Path) -> TrainerState:
    """Return the trainer's state in a checkpoint: the steps done, and the learning curve so far."""
    return TrainerState.load_from_json(str(checkpoint / STATE))


def checkpoint_folder(scratch: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` steps."""
    return scratch / f"{PREFIX}{step}"


def is_finished(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written after the last step of its run."""
    state = state_of(checkpoint)
    return bool(state.global_step >= state.max_steps)


def discard(scratch: Path) -> None:
    """Remove a run; files in its folder that whet did not write stay."""
    for folder in _newest_first(scratch):
        # the list goes first, so that what a kill leaves is not taken for a checkpoint
        (folder / LIST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    (scratch / SETTINGS).unlink(missing_ok=True)
    with suppress(OSError):
        scratch.rmdir()


@contextmanager
def guarding_checkpoints(scratch: Path) -> Iterator[None]:
    """Report checkpoints that cannot be written; a failed run leaves nothing in `scratch` but a whole checkpoint.

    Raises:
        OutputNotWritten: instead of the errors of the libraries that write checkpoints.
    """
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            _remove_unfinished(scratch)
            if isinstance(error, InvalidModel) and last_checkpoint(scratch) is None:
                discard(scratch)
            scratch.rmdir()  # which leaves it if it holds something
        if isinstance(error, WhetError) or not isinstance(error, OSError | SafetensorError):
            raise
        raise not_written(scratch, error) from error


def _remove_unfinished(scratch: Path) -> None:
    for folder in _newest_first(scratch):
        if not (folder / LIST).exists():
            shutil.rmtree(folder)


def _newest_first(scratch: Path) -> list[Path]:
    folders = [folder for folder in scratch.glob(f"{PREFIX}*") if folder.name.removeprefix(PREFIX).isdecimal()]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix(PREFIX)), reverse=True)


def _contents(folder: Path) -> _Contents:
    return _Contents.model_validate_json((folder / LIST).read_bytes())


def _fault(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None if it is whole."""
    try:
        listed = _contents(folder).files
        found = {path.name: path for path in folder.iterdir() if path.name != LIST}
        if missing := sorted(listed.keys() - found.keys()):
            return f"lacks {missing[0]}"
        if added := sorted(found.keys() - listed.keys()):
            return f"holds {added[0]}, which is not of it"
        altered = [name for name, path in found.items() if not _is_plain(path) or digest(path) != listed[name]]
    except FileNotFoundError:
        return "was not written to its end"
    except (OSError, ValidationError):
        return "cannot be read"
    return f"has another {altered[0]} than was written" if altered else None


def _is_plain(path: Path) -> bool:
    """Return whether a path is a file, and no link or pipe, whose reading may lead elsewhere or wait for ever."""
    return path.is_file() and not path.is_symlink()


def _changes(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the settings that differ from the recorded ones, as text; digests only if nothing else differs."""
    names = [*settings, *(name for name in recorded if name not in settings)]
    changed = [name for name in names if recorded.get(name) != settings.get(name)]
    told = [name for name in changed if not name.endswith("_sha256")] or changed
    return ", ".join(f"{name}={settings.get(name)}" for name in told)
