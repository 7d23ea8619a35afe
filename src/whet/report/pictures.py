"""Pictures of trials as files, PNG or SVG by their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from whet.errors import InvalidData, InvalidParameter, OutputExists, OutputNotWritten
from whet.evaluation.derived import derived
from whet.evaluation.trial import Trial
from whet.report.plots import trade_off_picture
from whet.utils.calls import checked
from whet.utils.files import can_write, check_path, write_files
from whet.utils.outputs import adding_to, has_mark

__all__ = ["check_picture", "draw"]

COSTS = ("latency_median", "speedup", "disk")
"""What quality is shown against, as far as it was measured."""
PANELS = 2
"""The most of these."""
FORMS: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
MARKS_OF_PICTURES = (b"\x89PNG", b"<!DOCTYPE svg")
"""The first bytes of every picture, by which a file is known that may be replaced."""


@checked
def draw(
    trials: Sequence[Trial], path: str | Path, *, quality: str | None = None, costs: Sequence[str] | None = None
) -> Path:
    """Draw quality against speed, with 95 % intervals, and return the file's path; a picture there is replaced.

    Args:
        trials: what `measure` returned, the baseline first.
        path: file to write, whose name ends in .png or .svg.
        quality: metric of the vertical axis; what was measured first, if None.
        costs: metrics of the horizontal axes, a panel each, such as `latency` or `size`; latency and speedup, or what
            was measured of them and of the size, if None.

    Raises:
        InvalidData: there are no trials, or they have no cost in common.
        UnknownName: a trial lacks one of the metrics.
        InvalidParameter, OutputExists, OutputNotWritten: the file cannot be written there; see `check_picture`.
    """
    place = Path(path)
    check_picture(place)
    if not trials or not trials[0].measurements:
        raise InvalidData("a picture must have one trial at least, but got none; measure a model")
    measured = [{one.metric for one in (*trial.measurements, *derived(trial.measurements))} for trial in trials]
    shown = [cost for cost in COSTS if all(cost in known for known in measured)][:PANELS] if costs is None else costs
    if not shown:
        raise InvalidData("models of a picture must have a time or a size in common, but got none; measure them anew")
    content = trade_off_picture(
        trials, quality=quality or trials[0].measurements[0].metric, costs=shown, form=FORMS[place.suffix.lower()]
    )
    file = place.resolve()
    with adding_to(file, wait=True):
        write_files(file.parent, {file.name: content})
    return place


def check_picture(path: Path, *, name: str = "the picture") -> None:
    """Refuse a place where no picture can be written, before there is one.

    Args:
        path: of the picture.
        name: names the path in messages.

    Raises:
        InvalidParameter: its name ends in neither .png nor .svg.
        OutputExists: there is a file that is no picture.
        OutputNotWritten: it is a folder, or in none, or one that cannot be written.
    """
    check_path(path, name)
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise OutputNotWritten(f"{name} must be a file in a folder that exists, but got {path}; name another")
    if not can_write(path.parent):
        raise OutputNotWritten(f"{name} must be in a folder that can be written, but got {path}; name another")
    if path.exists() and path.stat().st_size and not any(has_mark(path, mark) for mark in MARKS_OF_PICTURES):
        raise OutputExists(f"{name} must be new or a picture, but {path} is another file; name another")
    if path.suffix.lower() not in FORMS:
        raise InvalidParameter(f"{name} must end in .png or .svg, but got {path}; rename it")
