"""Writes a report of measured models: a web page, with a picture in two forms and Markdown beside it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidParameter, OutputExists
from whet.evaluation.headline import headline, holds_bar
from whet.report.collect import Result, collect_results, find_confirmations
from whet.report.html import html_page
from whet.report.markdown import markdown_page
from whet.report.plots import trade_off_picture
from whet.report.view import ReportView, reader_notes, report_view, what_it_is
from whet.utils.calls import checked
from whet.utils.files import litter, write_files
from whet.utils.manifests import is_artifact
from whet.utils.outputs import REPORT_FILES, adding_to, check_files, files_of_others
from whet.utils.ranges import MaxDrop

__all__ = ["PAGE", "Report", "make_report", "save_report", "write_report"]

PAGE, PICTURE, DRAWING, MARKDOWN = REPORT_FILES
MARK = "whet report"
"""Text near the start of every file, by which the next report recognises files that it may replace."""
PANELS = 2
"""Number of panels in the picture, one per cost."""


class Report(NamedTuple):
    """A report that was written."""

    page: Path
    """The web page; the other files are beside it."""
    view: ReportView
    """What it shows."""

    def to_dict(self) -> dict[str, Any]:
        """Return what the report says as JSON values."""
        view = self.view
        baseline = view.trials[0] if view.baseline else None
        return {
            "headline": "" if view.verdict is None else str(view.verdict),
            "best": None if view.best is None else view.trials[view.best].name,
            "max_drop": view.max_drop,
            "task": view.task,
            "examples": view.examples,
            "page": str(self.page),
            "rows": [
                {
                    "headline": "" if trial is baseline else headline(baseline, trial),
                    "description": what_it_is(trial),
                    "holds_bar": holds_bar(trial, max_drop=view.max_drop),
                    **trial.to_dict(),
                }
                for trial in view.trials
            ],
            "confirmations": [{"chosen": one.chosen, **one.trial.to_dict()} for one in view.confirmations],
            "conditions": dict(view.common),
            "notes": reader_notes(view),
        }


@checked
def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    only: Mapping[str, str] | None = None,
    max_drop: MaxDrop | None = None,
    overwrite: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write report.html, report.png, report.svg and report.md about all models measured below some folders.

    Args:
        folders: folders to search, with all folders inside them.
        out: folder for the files; if None, the searched folder, which must be a single one.
        only: conditions of the trials to show, such as {"threads": "2"}.
        max_drop: points of quality that the model on top may lose; if None, as many as a search was given, or else 1.
        overwrite: whether to write beside files of others, and to replace those of these names; reports are always
            replaced.
        warn: called with a sentence for each folder whose measurements cannot be read; the report shows the others,
            and says so too.

    Returns:
        The path of the web page.

    Raises:
        InvalidParameter: a folder does not exist, or `out` is missing or is the folder of a model.
        InvalidData: there are no measurements, or trials differ in task, data or machine.
        InvalidArtifact: no measurements, or not those right in a given folder, can be read.
        OutputExists: a file that is not a report would be replaced, or `out` holds files of others.
        OutputNotWritten: the folder cannot be written.
    """
    sources, target = list(map(Path, folders)), None if out is None else Path(out)
    return make_report(sources, target, only=only, max_drop=max_drop, overwrite=overwrite, warn=warn).page


@checked
def make_report(
    folders: Sequence[Path],
    out: Path | None,
    *,
    only: Mapping[str, str] | None,
    max_drop: MaxDrop | None,
    overwrite: bool,
    warn: Callable[[str], None],
) -> Report:
    """Write a report, and return what it says; see `write_report`."""
    target = out if out is not None else _only_folder(folders)
    _check_output(target, overwrite=overwrite)
    with adding_to(target):
        expected = overwrite or _is_one_of(target, folders) or (target / PAGE).is_file()
        others = [] if expected else sorted({*files_of_others(target)} - _of_a_report(target))
        if others:
            raise OutputExists(
                f"a report must have its own folder, or that of what was measured, but {target} holds {others[0]}; "
                "name another, or give --overwrite to write beside it"
            )
        notes: list[str] = []
        results = collect_results(folders, only=only, warn=notes.append)
        for note in notes:
            warn(note)
        view = report_view(results, notes=notes, confirmations=find_confirmations(folders, results), max_drop=max_drop)
        return Report(_write(view, results, target), view)


def save_report(results: Sequence[Result], out: Path, *, notes: Sequence[str] = (), overwrite: bool = False) -> Path:
    """Write the report of trials of one task, data set and machine.

    Args:
        results: trials, the baseline first, with the folders of their models.
        out: folder for the files.
        notes: what could not be read, a sentence each.
        overwrite: whether to replace files of these names that are not reports.

    Returns:
        The path of the web page.

    Raises:
        InvalidData, OutputExists, OutputNotWritten: see `write_report`.
    """
    _check_output(out, overwrite=overwrite)
    return _write(report_view(results, notes=notes), results, out)


def _write(view: ReportView, results: Sequence[Result], out: Path) -> Path:
    costs = [axis.metric for axis in view.axes][:PANELS]
    picture = partial(trade_off_picture, view.trials, quality=view.quality, costs=costs, software=MARK)
    # the page is written last, so that it only exists with the others
    files = {
        PICTURE: picture(),
        DRAWING: picture(form="svg"),
        MARKDOWN: markdown_page(view, mark=MARK, picture=PICTURE).encode("utf-8", "replace"),
        PAGE: html_page(view, results, mark=MARK).encode("utf-8", "replace"),
    }
    write_files(out, files)
    return out / PAGE


def _is_one_of(target: Path, folders: Sequence[Path]) -> bool:
    return target.resolve() in [folder.resolve() for folder in folders]


def _of_a_report(target: Path) -> set[str]:
    """The names of a report's files, and of what one that was killed left of them."""
    return {*REPORT_FILES} | {draft.name for name in REPORT_FILES for draft in litter(target / name, "partial")}


def _only_folder(folders: Sequence[Path]) -> Path:
    if len(folders) != 1:
        raise InvalidParameter(f"--out must be given for a report of {len(folders)} folders, but got none; add it")
    return folders[0]


def _check_output(out: Path, *, overwrite: bool) -> None:
    if is_artifact(out):
        raise InvalidParameter(
            f"a report must lie outside of a model's folder, whose manifest lists its files, but got {out}; "
            "give --out FOLDER"
        )
    check_files(out, REPORT_FILES, mark=MARK.encode(), overwrite=overwrite)
