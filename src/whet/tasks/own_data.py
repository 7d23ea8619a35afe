"""A task of the user's own data: the class that reads it follows from the kind, which the user or the data tell.

A class of `whet.tasks.datasets`, or of an installed package, names the kinds whose data it reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from whet.errors import InvalidParameter
from whet.tasks.base import PACKAGE, Task, text_map
from whet.tasks.files import listed
from whet.tasks.frames import OwnData, Source, source_of
from whet.tasks.kinds.base import TaskKind, all_kinds, kind_named, kind_of_metric
from whet.utils.lookup import members

__all__ = ["task_from_files"]


def task_from_files(
    train_file: OwnData | None = None,
    dev_file: OwnData | None = None,
    *,
    kind: str | None = None,
    text: str,
    text_pair: str | None = None,
    label: str | Sequence[str] = "label",
    label_separator: str | None = None,
    stride: int | None = None,
    metric: str | None = None,
    label_map: Mapping[str | int, str | int] | None = None,
    positive: str | None = None,
) -> Task:
    """Return the task of a user's own data; files are read on the first access to its labels or splits.

    Args:
        train_file: examples for training: a file in any format that the kind reads, or a table in memory, a
            pandas.DataFrame or a datasets.Dataset; measuring alone needs none.
        dev_file: examples for the final measurement, with the same columns; without them, nothing can be measured.
        kind: name of the kind; if None, files of words tell it by their endings, and else the metric does; if
            nothing does, the model, see `Task.for_kind`.
        text: name of the column of the sentences.
        text_pair: name of the column of the second sentences, or None.
        label: name of the column of the labels; or of a column of 0 and 1 for each of several labels.
        label_separator: stands between the names of several labels in a cell; a comma if None.
        stride: for language models, tokens that each window of the final measurement counts; half of a window if None.
        metric: name of a quality metric; the kind's first if None, such as accuracy. With pearson or spearman, the
            labels are scores.
        label_map: the class of the model for each label, by its name or number, where names do not tell.
        positive: the class that f1 scores; the model's class 1 if None.

    Raises:
        InvalidParameter: something else than a path or a table is given, or nothing; or the kind has no data of this
            form, or another metric.
        UnknownName: there is no such kind.
    """
    if train_file is None and dev_file is None:
        raise InvalidParameter("train_file or dev_file must be given, but got none; give one")
    train = None if train_file is None else source_of(train_file, "train_file")
    dev = None if dev_file is None else source_of(dev_file, "dev_file")
    readers = {name: task for task in members(PACKAGE, Task, group="whet.datasets") for name in task.file_kinds}
    said = kind or _told_by_ending([train, dev], readers)
    told = said or kind_of_metric(metric).name()
    own = readers[told].own_metrics if told in readers else ()
    _require_own_metric(kind_named(told), own, metric)
    if told not in readers:
        raise InvalidParameter(f"own data must be of the kind {listed(list(readers))}, but got {told}; give one")
    columns = (label,) if isinstance(label, str) else tuple(label)
    _require_own_labels(kind_named(told), columns, label_separator)
    options = {
        "label_separator": label_separator,
        "stride": stride,
        "text_pair": text_pair,
        "metric": metric,
        "label_map": text_map(label_map) or None,
        "positive": positive,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    known = {field.name for field in fields(readers[told])}
    if foreign := [name for name in given if name not in known]:
        knowing = [name for name, task in readers.items() if foreign[0] in {field.name for field in fields(task)}]
        raise InvalidParameter(
            f"--{foreign[0].replace('_', '-')} must go with data of {listed(knowing)}, but got it with {told}; leave "
            "it out, or give --kind"
        )
    where = columns if len(columns) > 1 else columns[0]
    if said is None and metric is None:
        again = partial(task_from_files, train_file, dev_file, text=text, text_pair=text_pair, label=label)
        others = {"label_separator": label_separator, "stride": stride, "label_map": label_map, "positive": positive}
        given["read_as"] = partial(again, **others)
    return _made(readers[told], train_file=train, dev_file=dev, text=text, label=where, read_for=kind, **given)


def _made(task: Any, **given: Any) -> Task:
    made: Task = task(**given)
    return made


def _told_by_ending(sources: Sequence[Source | None], readers: Mapping[str, type[Task]]) -> str | None:
    """The kind whose data alone have files of such an ending."""
    endings = {ending.lower() for source in sources if isinstance(source, Path) for ending in source.suffixes[-2:]}
    return next((name for name, task in readers.items() if endings & set(task.file_endings)), None)


def _require_own_labels(kind: TaskKind, columns: Sequence[str], separator: str | None) -> None:
    """Refuse what is said of several labels, where the kind has one."""
    if not columns or len(set(columns)) < len(columns):
        raise InvalidParameter(
            f"--label must name columns, each once, but got {', '.join(columns) or 'none'}; correct it"
        )
    if kind.several_labels:
        if separator is not None and (not separator or len(columns) > 1):
            raise InvalidParameter(
                f"--label-separator must be a sign between names in one column, but got {separator!r} with "
                f"{len(columns)} columns; leave it out"
            )
        return
    if separator is not None:
        raise InvalidParameter(
            f"--label-separator must go with --kind multi_label, but got it with {kind.name()}; leave it out"
        )
    if len(columns) > 1:
        raise InvalidParameter(
            f"--label must name one column for {kind.name()}, but got {listed(columns)}; give --kind multi_label if "
            "each is a label with 0 and 1"
        )


def _require_own_metric(kind: TaskKind, own: Sequence[str], metric: str | None) -> None:
    known = own or kind.metrics
    foreign = known or [name for other in all_kinds().values() for name in other.metrics]
    if metric is not None and (metric not in known if known else metric in foreign):
        remedy = f"give {listed(known)}" if known else "give another, or leave --kind out"
        raise InvalidParameter(f"--metric must score {kind.name()}, but got {metric}; {remedy}")
