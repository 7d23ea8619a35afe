"""The table that the command line prints."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from whet.evaluation.formatting import ratio, star, with_arm
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial

__all__ = ["TABLE_METRICS", "fastest_as_good", "trial_table"]


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

    The table marks the fastest model that is not significantly worse than the first.

    Args:
        trials: the trials, the baseline first.
        title: title of the table.
    """
    names = [name for name in TABLE_METRICS if any(one.metric == name for one in trials[0].measurements)]
    best = fastest_as_good(trials) if len(trials) > 1 else None
    legend = "± half of the 95 % interval; * differs from the first row, p < 0.05"
    quality = trials[0].measurements[0].metric
    shown = Table(
        title=escape(title),
        caption=legend if best is None else f"{legend}; ◀ the fastest without a significant loss of {quality}",
    )
    # cells fold in narrow terminals: a truncated number misleads
    shown.add_column("model", overflow="fold")
    for name in names:
        unit, title = trials[0].get(name).unit, escape(trials[0].get(name).title)
        shown.add_column(f"{title}\n{unit}" if unit else title, justify="right", overflow="fold")
    shown.add_column("speedup", justify="right", overflow="fold")
    for trial in trials:
        versus, mark = trial.get("throughput").versus, " ◀" if trial is best else ""
        cells = (with_arm(trial.get(name)) for name in names)
        shown.add_row(escape(trial.name), *cells, f"{ratio(versus)}{star(versus)}{mark}")
    return shown


def fastest_as_good(trials: Sequence[Trial], *, speed: str = "throughput") -> Trial:
    """Return the fastest trial that is not significantly worse than the first.

    Args:
        trials: the trials, the baseline first; the first measurement of each is its quality.
        speed: the metric of speed.
    """

    def worse(measurement: Measurement) -> bool:
        return (
            measurement.versus is not None
            and measurement.versus.significant
            and (measurement.versus.value < 0) == (measurement.better == "higher")
        )

    good = [trial for trial in trials if not worse(trial.measurements[0])]
    return max(good, key=lambda trial: trial.get(speed).value)
