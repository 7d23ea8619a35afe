"""Give whet bad inputs from a grammar: data, models, artifacts, recipes, options, paths, environment.

    cd tests && python -m campaigns.bad_inputs [--count 2000] [--seed 0] [--only KIND ...] [--processes 2] [--keep]

A bad input must end with a documented exit code and one sentence, in time, and leave everything as it was; an
input that turns out to be good must leave a whole artifact. It ends with an error unless all of that holds.
"""

import argparse
import os
import random
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from campaigns.command import Plan, run_campaign
from campaigns.forked import Job, Outcome, run
from campaigns.grammar.base import BadInput
from campaigns.grammar.data import data_inputs
from campaigns.grammar.environments import environment_inputs
from campaigns.grammar.models import artifact_inputs, model_inputs
from campaigns.grammar.options import option_inputs
from campaigns.grammar.paths import path_inputs
from campaigns.grammar.recipes import recipe_inputs
from campaigns.situation import copied, prepare
from whet.errors import WhetError
from whet.models import artifact
from whet.utils.files import digest

__all__ = ["KINDS", "inputs", "problems_of"]

CODES = {0, 2, 3}
"""Documented exit codes of a call that nobody interrupts; 3 is that of a search that finds nothing."""
LONGEST = 180
"""Seconds after which a call counts as hanging."""


KINDS: dict[str, Callable[[random.Random], BadInput]] = {
    "data": data_inputs,
    "model": model_inputs,
    "artifact": artifact_inputs,
    "recipe": recipe_inputs,
    "option": option_inputs,
    "path": path_inputs,
    "environment": environment_inputs,
}


def inputs(count: int, seed: int, only: Collection[str] = KINDS.keys()) -> list[BadInput]:
    """Return bad inputs, as many of each kind."""
    kinds = [KINDS[name] for name in only]
    chance = random.Random(seed)
    return [kinds[i % len(kinds)](chance) for i in range(count)]


# what must hold


def problems_of(case: BadInput, root: Path, scratch: Path) -> list[str]:
    """Run a case in a copy of a situation, and return what does not hold."""
    folder, streams = copied(root, scratch / "case"), scratch / "streams"
    shutil.rmtree(streams, ignore_errors=True)
    case.edit(folder)
    before = _tree(folder)
    argv = [os.fsdecode(os.fsencode(word.encode("utf-8", "surrogateescape"))) for word in case.argv]
    outcome = run(Job(argv=argv, folder=folder, streams=streams, environment=case.environment, limit=LONGEST))
    problems = _told_badly(outcome)
    after = _tree(folder)
    changed = sorted(name for name in before if before[name] != after.get(name))
    new = sorted(after.keys() - before.keys())
    if lost := [name for name in changed if not after.get(name) or not _may_change(name, case)]:
        problems.append(f"changed: {lost}")
    if new and outcome.code not in (0, 3):
        problems.append(f"left behind: {new[:6]}")
    problems += _broken(folder, new) if outcome.code == 0 else []
    if left := sorted(path.name for path in (streams / "tmp").iterdir() if not path.name.startswith("whet")):
        problems.append(f"left among temporary files: {left}")
    return problems


def _told_badly(outcome: Outcome) -> list[str]:
    if outcome.hanging:
        return [f"it hangs: {outcome.sentence}"]
    if outcome.has_traceback or outcome.code not in CODES:
        return [f"it ended with {outcome.code}: {outcome.sentence}"]
    if outcome.code == 2 and (": " not in outcome.sentence or len(outcome.sentence) > 2000):
        return [f"no sentence: {outcome.sentence[:300]}"]
    return []


def _may_change(name: str, case: BadInput) -> bool:
    """Whether a call may change a file: the records of what it measures, also where a picture fails later; exports."""
    notes = case.argv[0] == "measure" and Path(name).name in ("measurements.jsonl", "README.md", "manifest.json")
    return notes or case.argv[0] == "export" or (case.argv[0] == "report" and Path(name).name.startswith("report."))


def _broken(folder: Path, new: Sequence[str]) -> list[str]:
    """The new artifacts that are not whole."""
    problems = []
    for name in new:
        if Path(name).name == artifact.MANIFEST:
            try:
                artifact.verify((folder / name).parent)
            except WhetError as error:
                problems.append(f"the output is broken: {error}")
    if hidden := [name for name in new if Path(name).name.startswith(".") and "hidden" not in name]:
        problems.append(f"left behind: {hidden}")
    return problems


def _tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): digest(path) if path.is_file() and not path.is_symlink() else ""
        for path in sorted(folder.rglob("*"))
    }


def _plan(given: argparse.Namespace, scratch: Path) -> Plan:
    root = prepare(scratch)
    cases = inputs(given.count, given.seed, given.only)
    return Plan(cases, lambda case: case.kind, lambda case, own: problems_of(case, root, own))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return 1 if something did not hold."""
    return run_campaign("bad inputs", __doc__, arguments, count=2000, kinds=KINDS, plan=_plan)


if __name__ == "__main__":
    sys.exit(main())
