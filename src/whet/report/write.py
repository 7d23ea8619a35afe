"""Write a report of measured models: a web page, a picture and Markdown beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from whet.errors import InvalidParameter
from whet.models import artifact
from whet.report.collect import Result, collect
from whet.report.html import html_page
from whet.report.markdown import markdown_page
from whet.report.plots import trade_off_picture
from whet.report.view import Overview, overview
from whet.utils.files import check_files, write_files

__all__ = ["PAGE", "save_report", "write_report"]

PAGE = "report.html"
PICTURE = "report.png"
PAPER = "report.md"
MARK = "whet report"
"""Stands at the beginning of all three files, so that the next report may replace them."""
PANELS = 2
"""Costs that the picture shows."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    only: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write report.html, report.png and report.md about all models measured below these folders; return the page.

    Args:
        folders: looked through with all that is in them.
        out: where the three files go; the folder itself, if there is one.
        only: conditions that trials must have to be shown, such as {"threads": "2"}.
        overwrite: whether files of these names that are no reports may be replaced; reports always are.

    Raises:
        InvalidParameter: a folder is not there, or it is not clear where the report is to go.
        InvalidData: nothing was measured, or trials are not alike in task, data and machine.
        InvalidArtifact, InvalidModel: a model's measurements, configuration or weights cannot be read.
        OutputExists, OutputNotWritten: the place is taken or cannot be written.
    """
    sources = list(map(Path, folders))
    place = Path(out) if out is not None else _only_folder(sources)
    _check_place(place, overwrite=overwrite)
    return save_report(collect(sources, only=only), place, overwrite=overwrite)


def save_report(results: Sequence[Result], out: Path, *, overwrite: bool = False) -> Path:
    """Write the report of these results, which must be alike in task, data and machine; return the page.

    Args:
        results: trials, the baseline first, with the folders of their models.
        out: where the three files go.
        overwrite: see `write_report`.

    Raises:
        InvalidData, InvalidArtifact, InvalidModel, OutputExists, OutputNotWritten: see `write_report`.
    """
    _check_place(out, overwrite=overwrite)
    view = overview(results)
    # the page comes last: where it is, the others are too
    files = {
        PICTURE: _picture(view),
        PAPER: markdown_page(view, mark=MARK, picture=PICTURE).encode(),
        PAGE: html_page(view, results, mark=MARK).encode(),
    }
    write_files(out, files)
    return out / PAGE


def _picture(view: Overview) -> bytes:
    costs = [axis.metric for axis in view.axes if axis.metric != "latency_p95"][:PANELS]
    return trade_off_picture(view.trials, quality=view.quality, costs=costs, software=MARK)


def _only_folder(folders: Sequence[Path]) -> Path:
    if len(folders) != 1:
        raise InvalidParameter(f"--out must say where the report of {len(folders)} folders goes, but got none; add it")
    return folders[0]


def _check_place(out: Path, *, overwrite: bool) -> None:
    if artifact.is_artifact(out):
        raise InvalidParameter(
            f"a report must lie outside of a model's folder, which lists its files, but got {out}; give --out FOLDER"
        )
    check_files(out, (PAGE, PICTURE, PAPER), mark=MARK.encode(), overwrite=overwrite)
