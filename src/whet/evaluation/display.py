"""What was measured as a small table: plain text for a shell, HTML for a notebook."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from whet.evaluation.formatting import comparison, star, with_interval
from whet.evaluation.measurement import Measurement

__all__ = ["Grid", "models_grid", "summary", "trial_grid"]

SUMMARY = ("kl", "throughput", "latency_median", "disk")
"""Metrics that a summary shows after the quality, which is measured first."""


class Grid(NamedTuple):
    """The cells of a table, as text."""

    header: Sequence[str]
    """Names of the columns."""
    rows: Sequence[Sequence[str]]
    """As many cells each."""

    def text(self) -> str:
        """Return the table as lines, with the columns aligned."""
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def html(self, *, caption: str = "") -> str:
        """Return the table as HTML.

        Args:
            caption: stands above the table; none if empty.
        """
        above = f"<caption>{escape(caption)}</caption>" if caption else ""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def summary(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements that say most: the quality, and what the model costs."""
    return [*measurements[:1], *(one for one in measurements[1:] if one.metric in SUMMARY)]


def trial_grid(measurements: Sequence[Measurement]) -> Grid:
    """Return everything that was measured of one model, a row for each metric."""
    rows = [(one.title, with_interval(one), str(one.n), comparison(one.versus)) for one in measurements]
    return Grid(("metric", "value (95 % interval)", "n", "against the baseline"), rows)


def models_grid(models: Sequence[tuple[str, Sequence[Measurement]]], metrics: Sequence[str] | None = None) -> Grid:
    """Return a row for each model and a column for each metric.

    Args:
        models: the name of each and what was measured; names may repeat.
        metrics: what to show; the first model's summary if None.
    """
    first = models[0][1] if models else ()
    names = [one.metric for one in summary(first)] if metrics is None else list(metrics)
    rows = []
    for model, measurements in models:
        cells = {one.metric: _marked(one) for one in measurements}
        rows.append((model, *(cells.get(name, "") for name in names)))
    titles = {one.metric: one.title for one in first}
    return Grid(("model", *(titles.get(name, name) for name in names)), rows)


def _marked(one: Measurement) -> str:
    """The value, with a star where it differs from the baseline's by more than chance."""
    return with_interval(one) + star(one.versus)
