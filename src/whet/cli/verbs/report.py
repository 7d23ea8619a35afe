"""The verb `report` of the command line."""

from pathlib import Path

from whet.cli.console import print_json, show
from whet.cli.options import Flag, Json, Texts, conditions_in, silence_transformers
from whet.errors import InvalidParameter
from whet.utils.inputs import require_folder
from whet.utils.progress import note
from whet.utils.ranges import MaxDrop


def report(
    folder: Path,
    /,
    *folders: Path,
    out: Path | None = None,
    only: Texts = (),
    max_drop: MaxDrop | None = None,
    overwrite: Flag = False,
    as_json: Json = False,
) -> None:
    """Write what was measured as a web page, a picture and Markdown: report.html, report.png, report.svg, report.md.

    Args:
        folder: Folder with models that were measured, at any depth.
        folders: More such folders.
        out: Folder to write to; FOLDER itself if it is the only one.
        only: Show only what was measured under this condition, as NAME=VALUE, e.g. threads=2; repeatable.
        max_drop: Points of quality that the model on top may lose; if not given, as many as the search was given, or 1.
        overwrite: Also replace files of these names that are not reports.
    """
    for source in (folder, *folders):  # before slow imports
        require_folder(source, what="what a report is of", error=InvalidParameter)
    from whet.report.write import make_report

    silence_transformers()
    written = make_report(
        [folder, *folders],
        out,
        only=conditions_in(only),
        max_drop=max_drop,
        overwrite=overwrite,
        warn=lambda sentence: note(f"not shown: {sentence}"),
    )
    if as_json:
        print_json(written.to_dict())
        return
    show(*([] if written.view.verdict is None else [str(written.view.verdict)]), f"see {written.page}")
