"""The verb `search` of the command line."""

from typing import Annotated

import typer

from whet.cli.console import print_json, print_search_result, print_search_trial
from whet.cli.options import (
    AsJson,
    DataDir,
    DevFile,
    Label,
    MaxLength,
    MetricName,
    Out,
    Seed,
    TaskName,
    Text,
    TextPair,
    Threads,
    TrainFile,
    names_in,
    seconds_in,
    task_of,
    use_device,
)
from whet.searching.goal import Goal
from whet.searching.result import SearchResult
from whet.searching.search import search as search_for
from whet.utils.progress import say

__all__ = ["search"]

NOTHING_HOLDS = 3
"""Exit code where nothing is better than the baseline and holds the bar."""


def search(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a fine-tuned model.")],
    out: Out,
    max_drop: Annotated[float, typer.Option(help="Points of the task's metric that may be lost, such as 1.")] = 1.0,
    max_size: Annotated[float | None, typer.Option(help="MiB that it may take on disk.")] = None,
    time: Annotated[str, typer.Option(help="That it may take, loading included: 90s, 30m, 2h.")] = "30m",
    goal: Annotated[str, typer.Option(help="What counts: latency, size or both.")] = "latency",
    runtime: Annotated[str | None, typer.Option(help="Where models may run; all installed if not given.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of other runtimes than pytorch; fp32, int8 and bf16 if not given.")
    ] = None,
    task: TaskName = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    dev_file: DevFile = None,
    text: Text = "text",
    text_pair: TextPair = None,
    label: Label = "label",
    metric: MetricName = None,
    batch_size: Annotated[int, typer.Option(help="Sentences of the batches that are timed; 1 for single ones.")] = 32,
    max_length: MaxLength = 128,
    seed: Seed = 0,
    threads: Threads = None,
    join: Annotated[bool, typer.Option("--join", help="Help another search that is at work in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away what was found before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the fastest or smallest model that loses no more than a bar; it goes on where it was stopped.

    Exit code 3: nothing holds the bar, and what is nearest to it was kept.
    """
    use_device("cpu", threads, alone=True)
    result = search_for(
        model,
        task_of(task, data_dir, train_file, dev_file, text, text_pair, label, metric),
        out,
        goal=Goal(max_drop=max_drop, max_size=max_size, best=goal),  # type: ignore[arg-type]
        seconds=seconds_in(time),
        runtimes=None if runtime is None else names_in(runtime),
        precisions=None if precision is None else names_in(precision),
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        join=join,
        overwrite=overwrite,
        report=(lambda trial: None) if as_json else print_search_trial,
        warn=lambda sentence: say(f"note: {sentence}"),
    )
    if as_json:
        print_json(_as_json(result))
    else:
        print_search_result(result, out)
    if not result.accepted:
        raise typer.Exit(NOTHING_HOLDS)


def _as_json(result: SearchResult) -> object:
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
