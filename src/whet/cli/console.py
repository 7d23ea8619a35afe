"""What the command line prints: tables, sentences and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from whet.evaluation.formatting import number, percent, points, ratio, value_of
from whet.evaluation.headline import quality_difference
from whet.utils.distributed import is_first
from whet.utils.parameters import parameters
from whet.utils.streams import console

if TYPE_CHECKING:
    from whet.evaluation.inspection import Inspection
    from whet.evaluation.trial import Trial
    from whet.methods.base import Method
    from whet.methods.recipe import Step
    from whet.runtimes.base import Agreement
    from whet.searching.result import SearchResult
    from whet.searching.storage import SearchTrial
    from whet.training.trainer import Epoch

__all__ = [
    "print_agreements",
    "print_curve",
    "print_inspection",
    "print_json",
    "print_search_result",
    "print_search_trial",
    "print_step",
    "show",
]

_WIDE = 1000
"""Columns that every table fits into."""


def show(*parts: str | Table) -> None:
    """Print lines as they are, and tables as wide as they need to be where no terminal limits them.

    The first process speaks for all.
    """
    if not is_first():
        return
    terminal = console()
    if not terminal.is_terminal:
        terminal = console(width=_WIDE)
    for part in parts:
        line = isinstance(part, str)
        terminal.print(part, markup=not line, soft_wrap=line)


def print_curve(curve: Sequence[Epoch], title: str, *, as_json: bool) -> None:
    """Print a learning curve as a table or as JSON."""
    if as_json:
        print_json([row._asdict() for row in curve])
        return
    shown = Table(title=escape(title))
    for name in curve[0]._fields:
        shown.add_column(name.replace("_", " "), justify="right")
    for row in curve:
        shown.add_row(f"{row.epoch:g}", *map(number, row[1:]))
    show(shown)


def print_step(step: Step) -> None:
    """Print what one method of a recipe did."""
    share = step.parameters_after / step.parameters_before
    show(
        f"{step.method}: {step.layers} layers changed, parameters {number(step.parameters_before)} → "
        f"{number(step.parameters_after)} ({percent(share)}), {number(step.seconds, places=1)} s"
    )


def print_methods(known: Mapping[str, type[Method]]) -> None:
    """Print methods with their parameters and sources."""
    for name, method in known.items():
        shown = Table(
            "parameter", "range", "default", "meaning", title=f"{name} ({method.stage.name})", title_justify="left"
        )
        for row in parameters(method):
            shown.add_row(
                row.name, row.stated or row.kind, "" if row.default is None else str(row.default), row.meaning
            )
        show(method.summary(), shown, f"Source: {method.source()}\n" if method.source() else "")


def print_agreements(found: Mapping[tuple[str, str], Agreement]) -> None:
    """Print how near the answers of runtimes are to PyTorch's."""
    shown = Table("runtime", "precision", "computes in", title="against PyTorch")
    for name in ("largest difference", "equal predictions", "KL, held out", "layers in fp32"):
        shown.add_column(name, justify="right")
    for (runtime, precision), one in found.items():
        kl = "" if one.kl is None else number(one.kl)
        equal = percent(one.equal_predictions, places=0)
        cells = (number(one.largest_difference), equal, kl, number(len(one.in_fp32)))
        shown.add_row(runtime, precision, one.precision, *cells)
    show(shown)


def print_search_trial(trial: SearchTrial) -> None:
    """Print the outcome of one structure of a search."""
    candidates = [
        f"{candidate.name}: {_speedup(candidate)}, {points(quality_difference(candidate))} points"
        for candidate in trial.candidates
    ]
    outcome = "; ".join(candidates) or f"{trial.state}: {trial.message}"
    show(f"{trial.number}: {outcome}; {number(trial.seconds, places=0)} s")


def print_search_result(result: SearchResult, out: Path) -> None:
    """Print the frontier of a search, the best model, and its measurements on the dev split."""
    from whet.searching.result import BEST  # slow to import

    show(_frontier_table(result))
    if result.confirmation:
        on_dev = result.confirmation[1]
        quality = on_dev.measurements[0]
        drop = points(quality_difference(on_dev))
        show(
            f"on {number(quality.n)} dev examples: {quality.metric} {value_of(quality)}, "
            f"{drop} points from the baseline; speedup {_speedup(on_dev)}"
        )
    for note in result.notes:
        show(f"note: {note}")
    target = result.best.conditions or {}
    verdict = "" if result.accepted else "nothing that is better than the baseline holds the bar; the nearest is "
    show(f"{verdict}saved to {out / BEST}, for {target.get('runtime')} in {target.get('precision')}")


def _frontier_table(result: SearchResult) -> Table:
    baseline, mark = result.baseline, "◀ best" if result.accepted else "◀ nearest"
    quality = baseline.measurements[0]
    table = Table(
        title=escape(f"{baseline.name}: {number(quality.n)} examples that the search chose by"),
        caption="points: the difference from the baseline; speedup: sentences a second over the baseline's; "
        "in brackets, 95 % intervals",
    )
    table.add_column("model", overflow="fold")
    for name in (quality.metric, "points", "KL", "speedup", "MiB"):
        table.add_column(name, justify="right", overflow="fold")
    trials = list(result.frontier.trials)
    for trial in trials if result.best in trials else [*trials, result.best]:
        quality = trial.measurements[0]
        versus = "" if quality.versus is None else points(quality.versus)
        kl, size = value_of(trial.get("kl")), value_of(trial.get("disk"))
        name = escape(trial.name) + (f" {mark}" if trial is result.best else "")
        table.add_row(name, value_of(quality), versus, kl, _speedup(trial), size)
    return table


def _speedup(trial: Trial) -> str:
    return ratio(trial.get("throughput").versus)


def print_inspection(found: Inspection) -> None:
    """Print where parameters and time are, and what can help."""
    size, length = found.batch
    modules = Table("module", "kind", "shape", title=f"{size} sentences of {length} tokens")
    for name in ("parameters", "share", "ms", "time"):
        modules.add_column(name, justify="right")
    for row in found.modules:
        modules.add_row(
            row.name, row.kind, row.shape, number(row.parameters), percent(row.share),
            number(row.milliseconds, places=2), percent(row.time_share),
        )  # fmt: skip
    evens = Table("layers", "shape", title="where two thin products pay")
    for name in ("fewer parameters below rank", "faster up to rank", "speedup of the smallest rank"):
        evens.add_column(name, justify="right")
    for even in found.break_evens:
        evens.add_row(
            str(even.layers),
            even.shape,
            str(even.by_parameters),
            str(even.by_time or "none"),
            number(even.best_speedup, places=2),
        )
    show(modules, evens, *(f"• {line}" for line in found.advice))


def print_json(value: Any) -> None:
    """Print a value as JSON; methods and other dataclasses by their fields."""
    if is_first():
        print(json.dumps(value, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
