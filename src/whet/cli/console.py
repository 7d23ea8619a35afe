"""What the command line prints: tables, sentences and JSON."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from whet.evaluation.formatting import gain_unit, number, percent, points, points_with_arm, ratio, times, value_of
from whet.evaluation.headline import quality_difference, verdict
from whet.evaluation.places import short_places_in_words
from whet.report.tables import WIDTH, TableColumn, fitted_table, name_columns, trial_table
from whet.utils.distributed import is_first
from whet.utils.parameters import parameters
from whet.utils.progress import aside, quiet
from whet.utils.streams import console

if TYPE_CHECKING:
    from whet.evaluation.inspection import Inspection, Unreached
    from whet.evaluation.trial import Trial
    from whet.methods.base import Method
    from whet.methods.recipe import Step
    from whet.runtimes.base import Agreement
    from whet.searching.result import SearchResult
    from whet.searching.storage import SearchTrial
    from whet.training.curve import Epoch

__all__ = [
    "print_agreements",
    "print_curve",
    "print_exports",
    "print_inspection",
    "print_json",
    "print_search_result",
    "print_search_trial",
    "print_step",
    "print_trials",
    "show",
    "table_width",
    "tell",
    "weights_in_mib",
    "wide_tables",
]

_MIB = 2**20
_ANY = 100_000
"""Characters that every table fits into."""
_ALL_COLUMNS: ContextVar[bool] = ContextVar("all columns", default=False)


@contextmanager
def wide_tables(*, wanted: bool) -> Iterator[None]:
    """Print tables with all their columns in the block, or only with those that fit."""
    token = _ALL_COLUMNS.set(wanted)
    try:
        yield
    finally:
        _ALL_COLUMNS.reset(token)


def table_width() -> int | None:
    """Return how wide a table may be, in characters: as wide as the terminal, and as usual in a log; None: any."""
    if _ALL_COLUMNS.get():
        return None
    terminal = console()
    return terminal.width if terminal.is_terminal else WIDTH


def show(*parts: str | Table) -> None:
    """Print lines and tables as they are; no table is broken where it is too wide.

    The first process speaks for all.
    """
    if not is_first():
        return
    with aside():
        for part in parts:
            line = isinstance(part, str)
            console(width=None if line else _ANY).print(part, markup=not line, soft_wrap=line)


def tell(*parts: str | Table) -> None:
    """Print what is no result: steps, and what to do next; not where nothing but results is wanted."""
    if not quiet():
        show(*parts)


def print_curve(curve: Sequence[Epoch], title: str, *, as_json: bool) -> None:
    """Print a learning curve as a table or as JSON."""
    if as_json:
        print_json([row._asdict() for row in curve])
        return
    columns = [TableColumn("epoch", [f"{row.epoch:g}" for row in curve])]
    for name in curve[0]._fields[1:]:
        columns.append(TableColumn(name.replace("_", " "), [number(getattr(row, name)) for row in curve]))
    show(fitted_table(columns, title=title, width=table_width()))


def print_trials(trials: Sequence[Trial], title: str) -> None:
    """Print what was measured, one row a model."""
    show(trial_table(trials, title=title, width=table_width()))
    if len(trials) > 1 and (won := verdict(trials)):
        show(won)


def print_step(step: Step) -> None:
    """Print what one method of a recipe did."""
    told = [f"{step.layers} layers changed" if step.layers else "the values of weights changed"]
    if step.parameters_after != step.parameters_before:
        share = percent(step.parameters_after / step.parameters_before)
        told.append(f"parameters {number(step.parameters_before)} → {number(step.parameters_after)} ({share})")
    if step.bytes_after != step.bytes_before:
        before, after = (number(size / _MIB) for size in (step.bytes_before, step.bytes_after))
        told.append(f"{before} → {after} MiB ({percent(step.bytes_after / step.bytes_before)})")
    tell(f"{step.method}: {', '.join(told)}; {number(step.seconds, places=1)} s")


def weights_in_mib(model: str | Path) -> str:
    """Return the size on disk of a model's weights, in MiB."""
    from whet.models.load import weight_files

    return number(sum(path.stat().st_size for path in weight_files(model)) / _MIB)


def print_methods(known: Mapping[str, type[Method]]) -> None:
    """Print methods with their parameters and sources."""
    for name, method in known.items():
        rows = parameters(method)
        columns = [
            TableColumn("parameter", [row.name for row in rows], "word"),
            TableColumn("default", ["" if row.default is None else str(row.default) for row in rows], "name"),
            TableColumn("meaning", [row.meaning for row in rows], "text"),
            TableColumn("range", [row.stated or row.kind for row in rows], "text"),
        ]
        title = f"{name} ({method.stage.name}): {method.summary()}"
        source = f"Source: {method.source()}\n" if method.source() else ""
        show(title, fitted_table(columns, width=table_width()), source)


def print_agreements(found: Mapping[tuple[str, str], Agreement]) -> None:
    """Print how near the answers of runtimes are to PyTorch's."""
    rows = list(found.values())
    columns = [
        TableColumn("runtime", [runtime for runtime, _ in found], "word"),
        TableColumn("precision", [precision for _, precision in found], "word"),
        TableColumn(
            "equal\npredictions",
            ["" if (same := row.equal_predictions) is None else percent(same, places=0) for row in rows],
        ),
        TableColumn("KL,\nheld out", ["" if row.kl is None else number(row.kl) for row in rows]),
        TableColumn("largest\ndifference", [number(row.largest_difference) for row in rows]),
        TableColumn("computes\nin", [row.precision for row in rows], "word"),
        TableColumn("layers\nin fp32", [number(len(row.in_fp32)) for row in rows]),
    ]
    show(fitted_table(columns, title="against PyTorch", width=table_width()))


def print_exports(folder: Path, targets: Iterable[tuple[str, str]]) -> None:
    """Print which files of a folder each export reads, and their size."""
    from whet.models.manifest import read_manifest

    exports = read_manifest(folder).exports
    for runtime, precision in targets:
        names = list(exports[f"{runtime} {precision}"].files)
        size = sum((folder / name).stat().st_size for name in names) / _MIB
        show(f"{runtime} in {precision}: {', '.join(names)} in {folder}, {number(size)} MiB")


def print_search_trial(trial: SearchTrial) -> None:
    """Print the outcome of one structure of a search."""
    candidates = [f"{candidate.name}: {_speedup(candidate)}, {_gain(candidate)}" for candidate in trial.candidates]
    outcome = "; ".join(candidates) or f"{trial.state}: {trial.message}"
    tell(f"{trial.number}: {outcome}; {number(trial.seconds, places=0)} s")


def _gain(candidate: Trial) -> str:
    return f"{points(quality_difference(candidate))} {gain_unit(candidate.measurements[0].better)}"


def print_search_result(result: SearchResult, out: Path) -> None:
    """Print the frontier of a search, the best model, and its measurements on the dev split."""
    from whet.searching.result import BEST  # slow to import

    show(_frontier_table(result))
    if result.confirmation:
        on_dev = result.confirmation[1]
        quality = on_dev.measurements[0]
        show(
            f"on {number(quality.n)} dev examples: {quality.metric} {value_of(quality)}, "
            f"{_gain(on_dev)} from the baseline; speedup {_speedup(on_dev)}"
        )
    for note in result.notes:
        show(f"note: {note}")
    if not result.candidates and result.stopped:
        return  # there is nothing to load yet
    target, best = result.best.conditions or {}, out / BEST
    verdict = "" if result.accepted else "nothing that is better than the baseline holds the bar; the nearest is "
    needed, stored = (
        result.best.get("disk").value,
        sum(file.stat().st_size for file in best.rglob("*") if file.is_file()) / _MIB,
    )
    size = f"{number(stored, places=0)} MiB"
    size += f", of which {number(needed, places=0)} are needed" if stored > 1.1 * needed else ""
    show(f"{verdict}saved to {best}, for {target.get('runtime')} in {target.get('precision')} ({size})")
    tell(f"load it: whet.load({str(best)!r}); what is needed alone: whet export {shlex.quote(str(best))} --deploy DIR")


def _frontier_table(result: SearchResult) -> Table:
    baseline = result.baseline
    quality = baseline.measurements[0]
    frontier = list(result.frontier.trials)
    trials = frontier if result.best in frontier else [*frontier, result.best]
    marks = [" ◀" if trial is result.best else "" for trial in trials]
    changes = [trial.measurements[0].versus for trial in trials]
    columns = [
        *name_columns(trials),
        TableColumn(quality.metric, [value_of(trial.measurements[0]) for trial in trials]),
        TableColumn(
            f"change,\n{gain_unit(quality.better)}", ["" if one is None else points_with_arm(one) for one in changes]
        ),
        TableColumn(
            "throughput,\ntimes",
            [f"{times(trial.get('throughput').versus)}{mark}" for trial, mark in zip(trials, marks, strict=True)],
        ),
        TableColumn("disk,\nMiB", [value_of(trial.get("disk")) for trial in trials]),
        TableColumn("KL,\nnats", [value_of(trial.get("kl")) for trial in trials]),
        TableColumn("95 % interval\nof change", ["" if one is None else points(one) for one in changes]),
        TableColumn("95 % interval\nof throughput", [_speedup(trial) for trial in trials]),
    ]
    return fitted_table(
        columns,
        title=f"{baseline.name}: {number(quality.n)} examples that the search chose by",
        caption="; ".join(
            [
                "± half of the 95 % interval; * differs from the baseline, p < 0.05",
                f"◀ the {'best' if result.accepted else 'nearest'}",
                *short_places_in_words(trial.conditions for trial in trials),
            ]
        ),
        width=table_width(),
    )


def _speedup(trial: Trial) -> str:
    return ratio(trial.get("throughput").versus)


def print_inspection(found: Inspection) -> None:
    """Print where parameters and time are, and what can help."""
    size, length = found.batch
    rows, evens = found.modules, found.break_evens
    modules = [
        TableColumn("module", [row.name for row in rows], "name"),
        TableColumn("shape", [row.shape for row in rows], "word"),
        TableColumn("parameters", [number(row.parameters) for row in rows]),
        TableColumn("share", [percent(row.share) for row in rows]),
        TableColumn("ms", [number(row.milliseconds, places=2) for row in rows if row.milliseconds is not None]),
        TableColumn("time", [percent(row.time_share) for row in rows if row.time_share is not None]),
        TableColumn("kind", [row.kind for row in rows], "word"),
    ]
    products = [
        TableColumn("shape", [even.shape for even in evens], "word"),
        TableColumn("layers", [str(even.layers) for even in evens]),
        TableColumn("fewer parameters\nbelow rank", [str(even.by_parameters) for even in evens]),
        TableColumn("faster up\nto rank", [str(even.by_time or "none") for even in evens if even.by_time is not None]),
        TableColumn(
            "speedup of the\nsmallest rank",
            [number(even.best_speedup, places=2) for even in evens if even.best_speedup is not None],
        ),
    ]
    # without times, their columns have no cells
    modules, products = (
        [column for column in table if len(column.cells) == len(table[0].cells)] for table in (modules, products)
    )
    width = table_width()
    suited = [name for name, reason in found.methods.items() if not reason]
    show(
        f"family: {found.family}, {found.blocks}",
        f"kind: {found.kind.replace('_', ' ')}; its head reads {found.reads}",
        f"no method reaches {_shares(found.unreached)}",
        f"methods that can work on it: {', '.join(suited)}",
        *(f"not {name}: {reason}" for name, reason in found.methods.items() if reason),
        "",
        fitted_table(modules, title=f"{size} sentences of {length} tokens", width=width),
        "",
        fitted_table(products, title="where two thin products pay", width=width),
        "",
        *(f"• {line}" for line in found.advice),
    )


def _shares(unreached: Unreached) -> str:
    """How much of a model no method reaches, in words."""
    time = unreached.time_share
    of_time = "" if time is None else f" and {percent(time)} of the time of its modules"
    such = f", such as {', '.join(unreached.kinds[:3])}" if unreached.kinds else ""
    return f"{percent(unreached.share)} of its parameters{of_time}{such}"


def print_json(value: Any) -> None:
    """Print a value as JSON; methods and other dataclasses by their fields."""
    if is_first():
        with aside():
            print(json.dumps(value, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
