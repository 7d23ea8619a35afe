"""Run a campaign from the command line: try its cases, print what failed, and keep its figures.

The figures stay in `campaigns.json` beside the benchmarks.
"""

import argparse
import importlib.metadata
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from campaigns.forked import import_everything
from campaigns.pool import in_processes

__all__ = ["Plan", "run_campaign"]

FIGURES = Path(__file__).resolve().parents[2] / "benchmarks" / "campaigns.json"


class Plan(NamedTuple):
    """What a campaign tries."""

    cases: Sequence[Any]
    kind: Callable[[Any], str]
    """Returns the kind of a case, which the figures count by."""
    problems: Callable[[Any, Path], list[str]]
    """Tries a case in a folder that no other process uses, and returns what does not hold."""


def run_campaign(
    name: str,
    about: str,
    arguments: Sequence[str] | None,
    *,
    count: int,
    kinds: Collection[str],
    plan: Callable[[argparse.Namespace, Path], Plan],
) -> int:
    """Run a campaign; return 1 if something did not hold in one of its cases.

    Args:
        name: of the campaign, in the figures.
        about: the docstring of its module.
        arguments: the words of the command line; those of this process if None.
        count: how many cases are tried if nothing is said.
        kinds: names of the kinds of cases.
        plan: makes the plan from the options (count, seed, only) and a folder, in which it may prepare something.
    """
    given = _options(about, arguments, count=count, kinds=kinds)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="whet.campaign.") as folder:
        scratch = Path(folder)
        import_everything(scratch / "timing.lock")
        cases, kind, problems = plan(given, scratch)

        def attempt(case: Any) -> list[str]:
            own = scratch / str(os.getpid())
            own.mkdir(exist_ok=True)
            return problems(case, own)

        found = in_processes(attempt, cases, processes=given.processes)
    return _told(name, given, list(map(kind, cases)), found, time.monotonic() - begun)


def _options(about: str, arguments: Sequence[str] | None, *, count: int, kinds: Collection[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=count, help="cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=sorted(kinds), help="a kind of cases; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help=f"write the figures to {FIGURES.name}")
    given = parser.parse_args(arguments)
    given.only = given.only or list(kinds)
    return given


def _told(
    name: str, given: argparse.Namespace, kinds: Sequence[str], problems: Sequence[Sequence[str]], seconds: float
) -> int:
    """Print the counts of a campaign, keep them if that is wanted, and return its exit code."""
    tried, failed = Counter(kinds), Counter(kind for kind, some in zip(kinds, problems, strict=True) if some)
    for kind, number in sorted(tried.items()):
        print(f"{number:>6}  {kind}" + (f", {failed[kind]} failed" if failed[kind] else ""))
    print(f"{name}: {tried.total()} tried, {failed.total()} failed, {seconds:.0f} s")
    if given.keep:
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        conditions = {
            "seed": given.seed,
            "date": datetime.now(UTC).date().isoformat(),
            "version": importlib.metadata.version("whet"),
        }
        # kinds that were not tried this time keep their figures
        known[name] = known.get(name, {}) | {
            kind: {"tried": number, "failed": failed[kind], **conditions} for kind, number in tried.items()
        }
        FIGURES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return int(failed.total() > 0)
