"""Measuring from Python."""

from collections.abc import Callable, Sequence
from pathlib import Path

from whet.evaluation import records
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.trial import Trials
from whet.tasks.base import Task
from whet.utils.calls import checked

__all__ = ["measure"]


@checked
def measure(
    models: Sequence[str | Path],
    task: Task,
    *,
    benchmark: Benchmark | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    report: Callable[[Trials], None] = lambda trials: None,
) -> Trials:
    """Measure models side by side; the first is the baseline, and compressed ones keep their row in their folder.

    Rows of vectors in another form than a model gives are kept in `out` alone.

    Args:
        models: folders or hub names.
        task: gives the dev examples.
        benchmark: how.
        out: folder that keeps the rows of all of them, those of models from elsewhere too; what was measured into it
            before stays.
        overwrite: whether `out` is replaced instead.
        report: called with what was measured, before it is written.

    Raises:
        FiguresNotKept: a row could not be written; the others were, and the error's `trials` has all of them.
        WhetError: anything wrong with a model, the data or the place, before any timing.
    """
    folder = None if out is None else Path(out)
    inputs = [Path(model) for model in models]
    read = [*inputs, *task.files]
    with records.holding_run(folder, overwrite=overwrite, inputs=read):
        recorded = records.recordable(models)
        measured = (benchmark or Benchmark()).measured(models, task)
        trials = Trials(trial for _, trial in measured)
        report(trials)
        own = [(Path(row.source), trial) for row, trial in measured if "vectors" not in (trial.conditions or {})]
        rows = [(source, trial) for source, trial in own if source in recorded]
        records.keep(trials, rows, folder, overwrite=overwrite)
    return trials
