"""What was measured as a small table: plain text for a shell, HTML for a notebook."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from whet.evaluation.derived import derived
from whet.evaluation.formatting import comparison, with_arm, with_interval
from whet.evaluation.measurement import Measurement

__all__ = ["Grid", "models_grid", "summary", "trial_grid"]

SUMMARY = ("change", "speedup", "latency_median", "disk", "kl")
"""Metrics that a summary shows after the quality, which is measured first; what matters most is on the left."""
WIDTH = 80
"""Characters of a line that a table as text has at most."""
_SHORT = {"latency_median": "latency", "disk": "size"}
"""Names of columns where the metric's own is long."""
_LEAST_NAME = 16
"""Characters of a model's name that are kept, even if a column must go for them."""
_BETWEEN = 2
"""Spaces between columns."""


class Grid(NamedTuple):
    """The cells of a table, as text."""

    header: Sequence[str]
    """Names of the columns."""
    rows: Sequence[Sequence[str]]
    """As many cells each."""
    units: Sequence[str] = ()
    """Units of the columns; none where empty."""

    def text(self) -> str:
        """Return the table as lines of at most `WIDTH` characters, with the columns aligned.

        The first column loses its middle where it is too long, and the last columns are left out where that is not
        enough.
        """
        lines = [self.header, *([self.units] if any(self.units) else []), *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        least = min(widths[0], _LEAST_NAME)
        shown = next(n for n in range(len(widths), 0, -1) if n == 1 or _width([least, *widths[1:n]]) <= WIDTH)
        widths[0] = min(widths[0], max(least, WIDTH - _width([0, *widths[1:shown]])))
        cut = [[_without_middle(line[0], widths[0]), *line[1:shown]] for line in lines]
        return "\n".join(
            (" " * _BETWEEN).join(cell.ljust(width) for cell, width in zip(line, widths[:shown], strict=True)).rstrip()
            for line in cut
        )

    def html(self, *, caption: str = "") -> str:
        """Return the table as HTML.

        Args:
            caption: stands above the table; none if empty.
        """
        above = f"<caption>{escape(caption)}</caption>" if caption else ""
        units = self.units or [""] * len(self.header)
        named = (f"{name} ({unit})" if unit else name for name, unit in zip(self.header, units, strict=True))
        head = "".join(f"<th>{escape(name)}</th>" for name in named)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def summary(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements that say most: the quality, and what the model gains and costs."""
    known = {one.metric: one for one in (*measurements, *derived(measurements))}
    return [*measurements[:1], *(known[name] for name in SUMMARY if name in known)]


def trial_grid(measurements: Sequence[Measurement]) -> Grid:
    """Return everything that was measured of one model, a row for each metric."""
    rows = [(one.title, with_interval(one), str(one.n), comparison(one.versus)) for one in measurements]
    return Grid(("metric", "value (95 % interval)", "n", "against the baseline"), rows)


def models_grid(models: Sequence[tuple[str, Sequence[Measurement]]], metrics: Sequence[str] | None = None) -> Grid:
    """Return a row for each model and a column for each metric, ± half of its 95 % interval.

    Args:
        models: the name of each and what was measured; names may repeat.
        metrics: what to show; the first model's summary if None.
    """
    every = [{one.metric: one for one in (*measured, *derived(measured))} for _, measured in models]
    first = every[0] if every else {}
    names = [one.metric for one in summary(models[0][1] if models else ())] if metrics is None else list(metrics)
    rows = [
        (model, *(with_arm(known[name]) if name in known else "" for name in names))
        for (model, _), known in zip(models, every, strict=True)
    ]
    titles = [_SHORT.get(name, first[name].title if name in first else name) for name in names]
    units = [first[name].unit if name in first else "" for name in names]
    return Grid(("model", *titles), rows, ("", *units))


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _without_middle(name: str, width: int) -> str:
    """A name of at most so many characters; its end tells more than its start."""
    if len(name) <= width:
        return name
    head = width // 3
    return f"{name[:head]}…{name[len(name) - (width - head - 1) :]}"
