"""Search for the fastest or smallest model above a bar of quality, within a time.

Structures are tried one after the other (`sampler`), each in every runtime and precision (`stages`). All that is known
lies in the folder of the search (`storage`) together with the best model so far, so that a search may be stopped at any
moment and go on later. At the end the best is measured once on the dev split, which no choice has seen (`worker`).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from whet.errors import InvalidParameter
from whet.evaluation.slowness import busy_advice
from whet.models import artifact
from whet.models.load import weight_files
from whet.models.recognition import recognized
from whet.searching.baseline import Baseline
from whet.searching.goal import Goal
from whet.searching.result import SearchResult
from whet.searching.storage import SearchStorage, SearchTrial
from whet.searching.targets import targets
from whet.searching.worker import TimeBudget, Worker
from whet.tasks.base import Task
from whet.tasks.splits import ResplitTask, with_selection_split
from whet.utils.calls import checked
from whet.utils.distributed import process_count
from whet.utils.files import digest
from whet.utils.hardware import current_machine
from whet.utils.manifests import is_artifact
from whet.utils.progress import time_bar, time_in_words
from whet.utils.ranges import BatchSize, Duration, MaxLength, Seed

__all__ = ["search"]


@checked
def search(
    model: str | Path,
    task: Task,
    out: str | Path,
    *,
    goal: Goal | None = None,
    seconds: Duration = 1800,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = 128,
    seed: Seed = 0,
    join: bool = False,
    overwrite: bool = False,
    report: Callable[[SearchTrial], None] = lambda trial: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> SearchResult:
    """Search for the best model above a bar of quality; the best so far is always in `out`.

    The same call again goes on where the last one ended or was killed.

    Args:
        model: folder or hub name of a fine-tuned model.
        task: candidates are chosen on its training data, and the best is confirmed on its dev data.
        out: folder of the search; the best model is in its folder `best`.
        goal: the bar, and what counts above it.
        seconds: time that the search may take, loading included.
        runtimes: names of the runtimes that candidates run in, such as pytorch; all that are installed, if None.
        precisions: of the other runtimes than pytorch; fp32, int8 and bf16, as far as they are available, if None.
        batch_size: examples in the batches that are timed; 1 for single sentences.
        max_length: longer inputs are cut, in tokens.
        seed: of every random choice.
        join: whether other workers may be at work in the same folder.
        overwrite: whether everything in the folder is deleted first.
        report: called with the outcome of every structure.
        warn: called with a sentence on what the user should know early.

    Raises:
        WhetError: before any work, if the model, the data, a parameter or the folder is unsuitable; later, if the disk
            is full.
    """
    budget = TimeBudget(time.monotonic(), seconds)
    with time_bar("search: loading the model and the data", seconds) as bar:
        goal, wanted = goal or Goal(), targets(runtimes, precisions)
        split = _checked(model, task)
        identity = {
            "model_sha256": _weights_digest(model),
            "task": task.name,
            "data_sha256": [part.digest() for part in split.splits],
            **({"label_map": [list(pair) for pair in task.label_map]} if task.label_map else {}),
            **({"positive": task.positive} if task.positive else {}),
            "goal": [goal.max_drop, goal.max_size, goal.best],
            "runtimes": [str(target) for target in wanted],
            "batch_size": batch_size,
            "max_length": max_length,
            "seed": seed,
            "machine": _timing_conditions(),
            "versions": {name: version for name, version in artifact.versions().items() if name != "whet"},
        }
        with SearchStorage.opened(
            Path(out), identity, overwrite=overwrite, join=join, inputs=(Path(model), *task.files)
        ) as storage:
            warn(
                f"searching for at most {time_in_words(seconds)}: first the model is loaded and timed; each structure "
                "is told once it is measured"
            )
            baseline = Baseline.of(model, split, max_length=max_length, batch_size=batch_size, seed=seed)
            if busy := busy_advice(baseline.conditions):
                warn(busy)
            return Worker(storage, baseline, goal, wanted, budget, report, warn, bar).run()


def _checked(model: str | Path, task: Task) -> ResplitTask:
    """The task as the search splits it, after all checks that need no work."""
    if process_count() > 1:
        raise InvalidParameter(f"this must run in one process, but got {process_count()}; leave accelerate launch out")
    return with_selection_split(recognized(model, task).task)


def _weights_digest(model: str | Path) -> str:
    """The digest of all files that the model's logits depend on."""
    if is_artifact(model):
        return artifact.model_digest(Path(model))
    return digest(bytes.fromhex(digest(path)) for path in weight_files(model))


def _timing_conditions() -> dict[str, Any]:
    """The properties of the machine that times depend on."""
    machine = current_machine().to_dict()
    return {name: machine[name] for name in ("cpu", "cores", "threads", "instruction_sets", "omp_wait_policy")}
