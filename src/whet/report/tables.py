"""Tables for terminals and logs: what matters most in 80 columns, one row a model, and everything on demand."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from whet.evaluation.formatting import gain_unit, points_with_arm, times, with_arm
from whet.evaluation.headline import MAX_DROP, SPEEDS, fastest_that_holds
from whet.evaluation.places import short_place, short_places_in_words, tokenizer_in_words, without_place
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words

__all__ = ["TABLE_METRICS", "WIDTH", "TableColumn", "fitted_table", "name_columns", "shortened", "trial_table"]


TABLE_METRICS = (
    "accuracy",
    "matthews",
    "pearson",
    "f1",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "macro_label_f1",
    "mean_average_precision",
    "spearman",
    "entity_f1",
    "entity_precision",
    "entity_recall",
    "word_accuracy",
    "answer_f1",
    "exact_match",
    "kl",
    "disagreement",
    "throughput",
    "latency_median",
    "latency_p95",
    "parameters",
    "disk",
    "vector_bytes",
)
"""Metrics that tables can show, in their order."""
WIDTH = 80
"""Characters that a line of a table has at most, unless all columns are wanted."""
_LEAST_NAME = 12
"""Characters of a name that are kept, even if a column must go for them."""
_LEAST_TEXT = 24
"""Characters of a line of text in a cell, likewise."""
_BETWEEN = 2
"""Characters between two columns."""


class TableColumn(NamedTuple):
    """One column of a table."""

    title: str
    """At most two lines."""
    cells: Sequence[str]
    """One cell a row."""
    kind: Literal["number", "word", "name", "text"] = "number"
    """Numbers lie on the right; long names lose their middle; texts have several lines, broken between words."""

    @property
    def width(self) -> int:
        """Characters that the widest line takes."""
        return max(cell_len(line) for cell in (self.title, *self.cells) for line in cell.split("\n"))

    @property
    def least(self) -> int:
        """Characters that it needs at least."""
        least = {"name": _LEAST_NAME, "text": _LEAST_TEXT}.get(self.kind, self.width)
        return min(self.width, max(least, *map(cell_len, self.title.split("\n"))))


def fitted_table(
    columns: Sequence[TableColumn], *, title: str = "", caption: str = "", width: int | None = WIDTH
) -> Table:
    """Return a table with as many of the columns as fit, at least one; no number and no name is broken.

    Args:
        columns: the most important first.
        title: above the table.
        caption: below it; it says so itself if columns are missing.
        width: characters of a line; None for as many as all columns need.
    """
    kept = [columns[0]]
    for column in columns[1:]:
        if width is not None and _least_width([*kept, column]) > width:
            break
        kept.append(column)
    missing = "" if len(kept) == len(columns) else "--wide shows all columns"
    table = Table(
        title=escape(title) or None,
        caption="; ".join(filter(None, [escape(caption), missing])) or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    spare = float("inf") if width is None else width - _least_width(kept)
    shown = []
    for column in kept:
        room = int(min(column.width, column.least + spare))
        spare -= room - column.least
        table.add_column(
            escape(column.title),
            justify="right" if column.kind == "number" else "left",
            no_wrap=column.kind != "text",
            width=room,
        )
        cells = shortened(column.cells, room) if column.kind == "name" else column.cells
        shown.append([escape(cell) for cell in cells])
    for row in zip(*shown, strict=True):
        table.add_row(*row)
    return table


def _least_width(columns: Sequence[TableColumn]) -> int:
    return sum(column.least for column in columns) + _BETWEEN * (len(columns) - 1)


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most `width` characters: long ones lose their middle, and get their row's number if alike.

    Args:
        names: one a row.
        width: at least 8.
    """
    short = [_without_middle(name, width) for name in names]
    meant: dict[str, set[str]] = {}
    for one, name in zip(short, names, strict=True):
        meant.setdefault(one, set()).add(name)
    return [
        _without_middle(f"{row}: {name}", width, start=len(f"{row}: ")) if len(meant[one]) > 1 and one != name else one
        for row, (one, name) in enumerate(zip(short, names, strict=True), start=1)
    ]


def _without_middle(name: str, width: int, *, start: int = 0) -> str:
    """A name of at most so many characters; its end tells more than its start, but so many of that are kept."""
    if cell_len(name) <= width:
        return name
    head, tail = name[: max(start, width // 3)], name
    while tail and cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"


def trial_table(trials: Sequence[Trial], *, title: str, width: int | None = WIDTH) -> Table:
    """Return a terminal table: one row per model, ± half the 95 % interval, and a star for significant differences.

    The table marks the fastest model that is shown to lose less than `MAX_DROP` points.

    Args:
        trials: the trials, the baseline first.
        title: title of the table.
        width: characters of a line, which the columns that matter most get; None for all columns.
    """
    best = fastest_that_holds(trials)
    legend = "± half of the 95 % interval; * differs from the first row, p < 0.05"
    bar = f"shown to lose less than {MAX_DROP:g} point of {metric_in_words(trials[0].measurements[0])}"
    if len(trials) > 1 and any(one.metric in SPEEDS for one in trials[0].measurements):
        legend += f"; ◀ the fastest {bar}" if best is not trials[0] else f"; no faster model is {bar}"
    marks = [" ◀" if trial is best and trial is not trials[0] else "" for trial in trials]
    if any(one.metric in SPEEDS for one in trials[0].measurements):
        legend += f"; {tokenizer_in_words(trials[0].conditions)}"
    caption = "; ".join([legend, *short_places_in_words(trial.conditions for trial in trials)])
    return fitted_table(_columns(trials, marks), title=title, caption=caption, width=width)


def _columns(trials: Sequence[Trial], marks: Sequence[str]) -> list[TableColumn]:
    """Everything that was measured; what a reader looks for first is on the left."""
    measured = {one.metric: one for one in trials[0].measurements}
    quality = trials[0].measurements[0]
    columns = [
        *name_columns(trials),
        TableColumn(_in_two_lines(metric_in_words(quality)), _values(trials, quality.metric)),
    ]
    if len(trials) > 1:
        changes = [trial.measurements[0].versus for trial in trials]
        title = f"change,\n{gain_unit(quality.better)}"
        columns.append(TableColumn(title, ["" if one is None else points_with_arm(one) for one in changes]))
    if len(set(_values(trials, "vector_bytes") if "vector_bytes" in measured else ())) > 1:
        columns.append(TableColumn("vector,\nbytes", _values(trials, "vector_bytes")))
    if "latency_median" in measured:
        columns.append(TableColumn("one text,\nms", _values(trials, "latency_median")))
    if "throughput" in measured and len(trials) > 1:
        columns.append(_speedups(trials, marks))
    if "disk" in measured:
        columns.append(TableColumn("disk,\nMiB", _values(trials, "disk")))
    for name in TABLE_METRICS:
        if name in measured and name not in (quality.metric, "latency_median", "disk"):
            title, unit = measured[name].title, measured[name].unit
            columns.append(TableColumn(f"{title},\n{unit}" if unit else title, _values(trials, name)))
    return columns


def _values(trials: Sequence[Trial], metric: str) -> list[str]:
    return [with_arm(trial.get(metric)) for trial in trials]


def name_columns(trials: Sequence[Trial]) -> list[TableColumn]:
    """Return the names of models, and where they run in a column of its own, unless that is PyTorch for all."""
    own = [without_place(trial.name, trial.conditions) for trial in trials]
    columns = [TableColumn("model", own, "name")]
    if own != [trial.name for trial in trials]:
        columns.append(TableColumn("runs in", [short_place(trial.conditions) for trial in trials], "word"))
    return columns


def _speedups(trials: Sequence[Trial], marks: Sequence[str]) -> TableColumn:
    ratios = [times(trial.get("throughput").versus) for trial in trials]
    return TableColumn("throughput,\ntimes", [f"{one}{mark}" for one, mark in zip(ratios, marks, strict=True)])


def _in_two_lines(words: str) -> str:
    """Words in two lines of about the same length."""
    middle = len(words) / 2
    spaces = sorted((i for i, sign in enumerate(words) if sign == " "), key=lambda i: abs(i - middle))
    return words if not spaces else f"{words[: spaces[0]]}\n{words[spaces[0] + 1 :]}"
