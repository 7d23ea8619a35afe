"""Writes a report of measured models: a web page, with a picture and Markdown beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whet.errors import InvalidParameter, OutputExists
from whet.report.collect import Result, collect_results
from whet.report.html import html_page
from whet.report.markdown import markdown_page
from whet.report.plots import trade_off_picture
from whet.report.view import ReportView, report_view
from whet.utils.calls import checked
from whet.utils.files import litter, write_files
from whet.utils.manifests import is_artifact
from whet.utils.outputs import adding_to, check_files, files_of_others

__all__ = ["PAGE", "save_report", "write_report"]

PAGE = "report.html"
PICTURE = "report.png"
MARKDOWN = "report.md"
MARK = "whet report"
"""Text near the start of all three files, by which the next report recognises files that it may replace."""
PANELS = 2
"""Number of panels in the picture, one per cost."""


@checked
def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    only: Mapping[str, str] | None = None,
    overwrite: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write report.html, report.png and report.md about all models measured below some folders.

    Args:
        folders: folders to search, with all folders inside them.
        out: folder for the three files; if None, the searched folder, which must be a single one.
        only: conditions of the trials to show, such as {"threads": "2"}.
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
    sources = list(map(Path, folders))
    target = Path(out) if out is not None else _only_folder(sources)
    _check_output(target, overwrite=overwrite)
    with adding_to(target):
        expected = overwrite or _is_one_of(target, sources) or (target / PAGE).is_file()
        others = [] if expected else sorted({*files_of_others(target)} - _of_a_report(target))
        if others:
            raise OutputExists(
                f"a report must have its own folder, or that of what was measured, but {target} holds {others[0]}; "
                "name another, or give --overwrite to write beside it"
            )
        notes: list[str] = []
        results = collect_results(sources, only=only, warn=notes.append)
        for note in notes:
            warn(note)
        return save_report(results, target, notes=notes, overwrite=overwrite)


def save_report(results: Sequence[Result], out: Path, *, notes: Sequence[str] = (), overwrite: bool = False) -> Path:
    """Write the report of trials of one task, data set and machine.

    Args:
        results: trials, the baseline first, with the folders of their models.
        out: folder for the three files.
        notes: what could not be read, a sentence each.
        overwrite: whether to replace files of these names that are not reports.

    Returns:
        The path of the web page.

    Raises:
        InvalidData, OutputExists, OutputNotWritten: see `write_report`.
    """
    _check_output(out, overwrite=overwrite)
    view = report_view(results, notes=notes)
    # the page is written last, so that it only exists with the other two
    files = {
        PICTURE: _picture(view),
        MARKDOWN: markdown_page(view, mark=MARK, picture=PICTURE).encode("utf-8", "replace"),
        PAGE: html_page(view, results, mark=MARK).encode("utf-8", "replace"),
    }
    write_files(out, files)
    return out / PAGE


def _picture(view: ReportView) -> bytes:
    costs = [axis.metric for axis in view.axes if axis.metric != "latency_p95"][:PANELS]
    return trade_off_picture(view.trials, quality=view.quality, costs=costs, software=MARK)


def _is_one_of(target: Path, folders: Sequence[Path]) -> bool:
    return target.resolve() in [folder.resolve() for folder in folders]


def _of_a_report(target: Path) -> set[str]:
    """The names of a report's files, and of what one that was killed left of them."""
    names = {PAGE, MARKDOWN, PICTURE}
    return names | {draft.name for name in names for draft in litter(target / name, "partial")}


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
    check_files(out, (PAGE, PICTURE, MARKDOWN), mark=MARK.encode(), overwrite=overwrite)
