"""The table that the command line prints."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from whet.evaluation.formatting import ratio, star, with_arm
from whet.evaluation.headline import MAX_DROP, fastest_that_holds
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words

__all__ = ["TABLE_METRICS", "trial_table"]


TABLE_METRICS = (
    "accuracy",
    "matthews",
    "pearson",
    "f1",
    "macro_f1",
    "weighted_f1",
    "spearman",
    "kl",
    "disagreement",
    "throughput",
    "latency_median",
    "latency_p95",
    "parameters",
    "disk",
)
"""Metrics that the table can show, in the order of its columns."""


def trial_table(trials: Sequence[Trial], *, title: str) -> Table:
    """Return a terminal table: one row per model, ± half the 95 % interval, and a star for significant differences.

    The table marks the fastest model that is shown to lose less than `MAX_DROP` points.

    Args:
        trials: the trials, the baseline first.
        title: title of the table.
    """
    names = [name for name in TABLE_METRICS if any(one.metric == name for one in trials[0].measurements)]
    best = fastest_that_holds(trials)
    legend = "± half of the 95 % interval; * differs from the first row, p < 0.05"
    bar = f"shown to lose less than {MAX_DROP:g} point of {metric_in_words(trials[0].measurements[0])}"
    if len(trials) > 1:
        legend += f"; ◀ the fastest {bar}" if best is not trials[0] else f"; no faster model is {bar}"
    shown = Table(
        title=escape(title),
        caption=legend,
    )
    # cells fold in narrow terminals: a truncated number misleads
    shown.add_column("model", overflow="fold")
    for name in names:
        unit, title = trials[0].get(name).unit, escape(trials[0].get(name).title)
        shown.add_column(f"{title}\n{unit}" if unit else title, justify="right", overflow="fold")
    shown.add_column("speedup", justify="right", overflow="fold")
    for trial in trials:
        versus, mark = trial.get("throughput").versus, " ◀" if trial is best and trial is not trials[0] else ""
        cells = (with_arm(trial.get(name)) for name in names)
        shown.add_row(escape(trial.name), *cells, f"{ratio(versus)}{star(versus)}{mark}")
    return shown
