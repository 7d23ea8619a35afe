"""A known task or one of the user's own data, after a check that what is given goes together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from whet.errors import InvalidData, InvalidParameter
from whet.evaluation.metrics.base import quality_named
from whet.tasks.base import Task, task_named
from whet.tasks.frames import OwnData
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.own_data import task_from_files
from whet.utils.calls import checked

__all__ = ["load_task"]


@checked
def load_task(
    name: str | None = None,
    *,
    data_dir: str | Path | None = None,
    train_file: OwnData | None = None,
    dev_file: OwnData | None = None,
    kind: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str | Sequence[str] = "label",
    label_separator: str | None = None,
    stride: int | None = None,
    metric: str | None = None,
    label_map: Mapping[str | int, str | int] | None = None,
    positive: str | None = None,
) -> Task:
    """Return a known task, or one made of your own data; files are read when they are first needed.

    Args:
        name: a known task, such as glue/mrpc; or give your own data.
        data_dir: folder with the known task's local files; without it, the data come from the hub.
        train_file: your own training examples: a CSV, TSV, JSONL or Parquet file, a pandas.DataFrame or a
            datasets.Dataset; for taggers a file of CoNLL columns too; measuring alone needs none.
        dev_file: your own examples for the final measurement, with the same columns; only `measure` needs them.
        kind: what your own data are for, such as token_classification; where it is None, files and metric tell.
        text: column of your files with the text.
        text_pair: column with the second text, if there is one.
        label: column with the class, score or tags, or with the names of several labels; or several columns of 0 and
            1, one for each label.
        label_separator: what stands between the names of several labels in a cell; a comma if None.
        stride: for language models, tokens that each window of the final measurement counts; half of a window if None.
        metric: quality metric that counts; the kind's first if None, such as accuracy. With pearson or spearman,
            labels are scores.
        label_map: the class of the model, by its name or number, for each label of the data, where names do not tell
            which is which.
        positive: the class that f1 scores; class 1 of the model, or of a known task, if None.

    Raises:
        InvalidParameter: arguments do not go together.
        UnknownName: there is no such task, kind or metric; the message gives the nearest.
    """
    if (name is None) == (train_file is None) and (name is not None or dev_file is None):
        raise InvalidParameter("one of --task and --train-file must be given, but got both or none; give one")
    if name is not None:
        if any(given is not None for given in (dev_file, text_pair, metric)):
            raise InvalidParameter(
                "--dev-file, --text-pair and --metric must go with --train-file, but got one with --task; leave it out"
            )
        if label not in ("label", ("label",)) or label_separator is not None:
            raise InvalidParameter(
                "--label and --label-separator must go with --train-file, but got one with --task; leave it out"
            )
        if stride is not None:
            raise InvalidParameter(f"--stride must go with --train-file, but got {stride} with --task; leave it out")
        known = task_named(name, data_dir=data_dir, label_map=label_map, positive=positive)
        if kind is not None:
            known = _of_kind(known, kind_named(kind))
        return _with_positive(known)
    if data_dir is not None:
        raise InvalidParameter("--data-dir must go with --task, but got it with --train-file; leave it out")
    if metric is not None:
        quality_named(metric)
    task = task_from_files(
        train_file,
        dev_file,
        kind=kind,
        text=text,
        text_pair=text_pair,
        label=label,
        label_separator=label_separator,
        stride=stride,
        metric=metric,
        label_map=label_map,
        positive=positive,
    )
    return _with_positive(task)


def _of_kind(task: Task, kind: TaskKind) -> Task:
    """The task as models of a kind answer it, which its data must serve."""
    try:
        return replace(task.for_kind(kind), read_for=kind.name())
    except InvalidData as error:
        served = (task.kind.name(), *task.serves)
        raise InvalidParameter(
            f"--kind must be that of the task, but got {kind.name()} for {task.name}, which serves "
            f"{' and '.join(served)}; leave it out"
        ) from error


def _with_positive(task: Task) -> Task:
    """The task, after a check that its metrics score one class if the user names one."""
    if task.positive is not None and not any(quality_named(name).of_one_class for name in task.metrics):
        named = ", ".join(task.metrics) or f"{task.kind.name()} without any"
        raise InvalidParameter(f"--positive must go with a metric of one class, f1, but got {named}; leave it out")
    return task
