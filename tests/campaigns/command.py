"""The command line of a campaign, and its figures, which stay in `campaigns.json` beside the benchmarks."""

import argparse
import importlib.metadata
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["options", "told"]

FIGURES = Path(__file__).resolve().parents[2] / "benchmarks" / "campaigns.json"


def options(about: str, arguments: Sequence[str] | None, *, count: int, kinds: Collection[str]) -> argparse.Namespace:
    """Return what the command line of a campaign says: count, seed, only, processes, keep.

    Args:
        about: the docstring of its module.
        arguments: the words of the command line; those of this process if None.
        count: how many cases are tried if nothing is said.
        kinds: names of the kinds of cases.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=count, help="cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=sorted(kinds), help="a kind of cases; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help=f"write the figures to {FIGURES.name}")
    given = parser.parse_args(arguments)
    given.only = given.only or list(kinds)
    return given


def told(
    name: str, given: argparse.Namespace, counts: Mapping[str, int], problems: Sequence[Sequence[str]], seconds: float
) -> int:
    """Print the counts of a campaign, keep them if that is wanted, and return its exit code.

    Args:
        name: of the campaign.
        given: what `options` returned.
        counts: how many cases of each kind were tried.
        problems: for each case, what did not hold.
        seconds: how long it took.
    """
    for kind, number in sorted(counts.items()):
        print(f"{number:>6}  {kind}")
    failed = sum(map(bool, problems))
    print(f"{name}: {len(problems)} tried, {failed} failed, {seconds:.0f} s")
    if given.keep:
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        known[name] = {
            "tried": len(problems),
            "failed": failed,
            "seed": given.seed,
            "seconds": round(seconds),
            "date": datetime.now(UTC).date().isoformat(),
            "version": importlib.metadata.version("whet"),
            "counts": dict(counts),
        }
        FIGURES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return int(failed > 0)
