"""The verb `search` of the command line."""

from typing import TYPE_CHECKING

from whet.cli.console import print_json, print_search_result, print_search_trial
from whet.cli.options import (
    MAX_LENGTH,
    Flag,
    InputLength,
    OutputOptions,
    SeedOptions,
    TaskOptions,
    names_in,
    seconds_in,
)
from whet.utils.progress import note
from whet.utils.ranges import BatchSize, MaxDrop, MaxSize

if TYPE_CHECKING:
    from whet.searching.result import SearchResult


NOTHING_HOLDS = 3
"""Exit code where nothing is better than the baseline and holds the bar."""


def search(
    model: str,
    /,
    *,
    output: OutputOptions,
    data: TaskOptions = TaskOptions(),
    max_drop: MaxDrop = 1.0,
    max_size: MaxSize | None = None,
    time: str = "30m",
    goal: str = "latency",
    runtime: str | None = None,
    precision: str | None = None,
    batch_size: BatchSize = 32,
    max_length: InputLength = MAX_LENGTH,
    join: Flag = False,
    machine: SeedOptions = SeedOptions(),
) -> int:
    """Find the fastest or smallest model that loses no more than a bar; it goes on where it was stopped.

    Exit code 3 says that nothing holds the bar, and that what is nearest to it was kept.

    Args:
        model: Folder or hub name of a fine-tuned model.
        max_drop: Points of the task's metric that the model may lose, e.g. 1.
        max_size: MiB that the model may take on disk.
        time: Time that the search may take, loading included: 90s, 30m, 2h.
        goal: What to improve: latency, size or both.
        runtime: Where models may run, separated by commas; all that are installed if not given.
        precision: Precisions of other runtimes than pytorch, separated by commas; fp32, int8 and bf16 if not given.
        batch_size: Examples in the batches that are timed; 1 for single sentences.
        join: Help another search that is at work in the folder.
    """
    from whet.models.model_files import ModelFiles
    from whet.searching.goal import Goal

    # what is wrong with options is said before what is slow to import
    bar, seconds = Goal(max_drop=max_drop, max_size=max_size, best=goal), seconds_in(time)  # type: ignore[arg-type]
    ModelFiles.of(model)
    task = data.load()
    machine.use_cpu()
    from whet.searching.search import search as search_for

    result = search_for(
        model,
        task,
        output.out,
        goal=bar,
        seconds=seconds,
        runtimes=None if runtime is None else names_in(runtime),
        precisions=None if precision is None else names_in(precision),
        batch_size=batch_size,
        max_length=max_length,
        seed=machine.seed,
        join=join,
        overwrite=output.overwrite,
        report=(lambda trial: None) if output.as_json else print_search_trial,
        warn=note,
    )
    if output.as_json:
        print_json(_as_json(result))
    else:
        print_search_result(result, output.out)
    if result.stopped and not result.accepted:
        raise KeyboardInterrupt  # what was found so far is printed; the exit code is that of the signal
    return 0 if result.accepted else NOTHING_HOLDS


def _as_json(result: "SearchResult") -> object:
    return {
        "accepted": result.accepted,
        "best": result.best.to_dict(),
        "confirmation": [trial.to_dict() for trial in result.confirmation],
        "frontier": [trial.name for trial in result.frontier.trials],
        "trials": [trial.to_dict() for trial in (result.baseline, *result.candidates)],
        "attempts": [  # keys that scripts read keep their names
            {"number": trial.number, "state": trial.state, "message": trial.message, "left_out": trial.left_out}
            for trial in result.search_trials
        ],
        "notes": result.notes,
    }
