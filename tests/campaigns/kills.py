"""Kill whet's verbs at every file operation and at random moments, and run them again.

    cd tests && python -m campaigns.kills [--count 500] [--seed 0] [--only VERB ...] [--processes 2] [--keep]

After each signal: inputs are as they were; what lay at the output is whole, as before or as it should become; the same
call again succeeds; what it makes equals what an uninterrupted run makes, bit by bit but for times; and nothing else is
left, neither beside it nor among temporary files. It ends with an error unless all of that holds.
"""

import argparse
import csv
import math
import random
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns.command import Plan, run_campaign
from campaigns.forked import FileOperations, Job, Outcome, finish, run, start
from campaigns.situation import DONE, VERBS, Verb, copied, done, prepare
from whet.errors import WhetError
from whet.models import artifact
from whet.utils.files import digest

__all__ = ["Kill", "Uninterrupted", "kills_of", "problems_after", "uninterrupted"]

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
TIMED = {"curve.csv", "curve.png", "measurements.jsonl", "README.md", "manifest.json"}
"""Files that hold times, or digests of those that do."""
STOPPED = {-signal.SIGKILL, 128 + signal.SIGINT, 128 + signal.SIGTERM, *DONE}
"""Exit codes of a call that a signal may have reached: it may have ended before, and a search gives what it has."""


@dataclass(frozen=True)
class Kill:
    """A signal, and when it is sent."""

    verb: Verb
    signal: int
    operation: int | None = None
    """Before this file operation; or after `seconds`."""
    seconds: float = 0.0

    def __str__(self) -> str:
        moment = f"after {self.seconds:.2f} s" if self.operation is None else f"before operation {self.operation}"
        return f"{self.verb.name}: {signal.Signals(self.signal).name} {moment}"


@dataclass(frozen=True)
class Uninterrupted:
    """What a verb does when nobody disturbs it."""

    operations: tuple[str, ...]
    """Its file operations: event and name of the file."""
    seconds: float
    files: dict[str, str]
    """The digest of every file in its working folder afterwards."""
    curve: list[dict[str, str]]
    """Its learning curve, if it has one, without times."""
    left: frozenset[str]
    """Names in the folder of temporary files afterwards."""


def uninterrupted(root: Path, verb: Verb, scratch: Path) -> Uninterrupted:
    """Run a verb to its end, and return what it does."""
    scratch.mkdir()
    folder, streams = copied(root, scratch / "whole", verb), scratch / "streams"
    log = scratch / "operations.txt"
    outcome = done(run(_job(verb, folder, streams, begin=FileOperations(folder, log=log).watch)))
    operations = tuple(log.read_text(encoding="utf-8", errors="replace").splitlines())
    return Uninterrupted(operations, outcome.seconds, _files(folder), _curve(folder / verb.out), _left(streams))


def kills_of(verb: Verb, whole: Uninterrupted, count: int, chance: random.Random) -> list[Kill]:
    """Return kills of a verb: SIGKILL at as many of its file operations as there is room for, and others by chance.

    A fifth comes at random moments, a fifth at random operations with SIGINT or SIGTERM.
    """
    by_chance = [Kill(verb, chance.choice(SIGNALS), None, chance.uniform(0, whole.seconds)) for _ in range(count // 5)]
    numbers = range(len(whole.operations))
    stops = [Kill(verb, chance.choice(SIGNALS[1:]), chance.choice(numbers)) for _ in range(count // 5)]
    room = count - len(by_chance) - len(stops)
    chosen = numbers if len(numbers) <= room else sorted(chance.sample(numbers, room))
    return [*by_chance, *stops, *(Kill(verb, signal.SIGKILL, number) for number in chosen)]


def problems_after(kill: Kill, root: Path, whole: Uninterrupted, scratch: Path) -> list[str]:
    """Interrupt a verb, run it again, and return what does not hold."""
    verb = kill.verb
    folder, streams = copied(root, scratch / "killed", verb), scratch / "streams"
    shutil.rmtree(streams, ignore_errors=True)
    before = _files(folder)
    outcome = _interrupted(kill, folder, streams)
    problems = []
    if outcome.code not in STOPPED or outcome.hanging or outcome.has_traceback:
        problems.append(f"it ended with {outcome.code}: {outcome.sentence}")
    if changed := _changed_inputs(verb, before, _files(folder)):
        problems.append(f"inputs changed: {changed}")
    problems += _broken_output(verb, folder)
    again = run(_job(verb, folder, streams, overwrite=(folder / verb.out / artifact.MANIFEST).exists()))
    if again.code not in DONE:
        return [*problems, f"the same call again ended with {again.code}: {again.sentence}"]
    return problems + _differences(verb, folder, streams, whole)


def _interrupted(kill: Kill, folder: Path, streams: Path) -> Outcome:
    if kill.operation is not None:
        watch = FileOperations(folder, stop_at=kill.operation, signal=kill.signal).watch
        return run(_job(kill.verb, folder, streams, begin=watch))
    job = _job(kill.verb, folder, streams)
    return finish(start(job), job, send=(kill.signal, kill.seconds))


def _broken_output(verb: Verb, folder: Path) -> list[str]:
    out = folder / verb.out
    if verb.over is not None and not out.exists():
        return ["the former output is gone, and the new one is not there"]
    if verb.name in ("measure", "report", "search") or not out.exists():
        return []
    try:
        artifact.verify(out)
    except WhetError as error:
        return [f"the output is broken: {error}"]
    return []


def _differences(verb: Verb, folder: Path, streams: Path, whole: Uninterrupted) -> list[str]:
    """What the second call left otherwise than an uninterrupted one."""
    files, problems = _files(folder), []
    if verb.name == "search":  # which structures it has the time for differs
        files, expected = ({name: "" for name in some if not name.startswith("o/")} for some in (files, whole.files))
    else:
        expected = whole.files
    if missing := sorted(expected.keys() - files.keys()):
        problems.append(f"missing: {missing}")
    if more := sorted(files.keys() - expected.keys()):
        problems.append(f"left behind: {more}")
    if more := sorted(_left(streams) - whole.left):
        problems.append(f"left among temporary files: {more}")
    same = sorted(files.keys() & expected.keys())
    other = [name for name in same if verb.exact and Path(name).name not in TIMED and files[name] != expected[name]]
    if other:
        problems.append(f"other content: {other}")
    if verb.exact and _curve(folder / verb.out) != whole.curve:
        problems.append("other curve")
    return problems


def _curve(out: Path) -> list[dict[str, str]]:
    """The learning curve of a model, without its times; empty if it has none."""
    path = out / "curve.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if "second" not in name} for row in csv.DictReader(file)]


def _job(verb: Verb, folder: Path, streams: Path, *, overwrite: bool = False, begin=lambda: None) -> Job:
    argv = verb.line(overwrite=overwrite and verb.out == "o" and verb.name not in ("report", "search"))
    return Job(argv=argv, folder=folder, streams=streams, begin=begin)


def _changed_inputs(verb: Verb, before: dict[str, str], after: dict[str, str]) -> list[str]:
    own = (f"{verb.out}/", "ft/", "kf/") if verb.name == "measure" else (f"{verb.out}/",)
    return sorted(name for name in before if not name.startswith(own) and after.get(name) != before[name])


def _files(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder; folders too, which have none."""
    return {str(path.relative_to(folder)): digest(path) if path.is_file() else "" for path in sorted(folder.rglob("*"))}


def _left(streams: Path) -> frozenset[str]:
    return frozenset(path.name for path in (streams / "tmp").iterdir())


def _plan(given: argparse.Namespace, scratch: Path) -> Plan:
    root = prepare(scratch)
    wholes = {name: uninterrupted(root, VERBS[name], scratch / f"{name} at first") for name in given.only}
    each = given.count / sum(VERBS[name].weight for name in wholes)
    kills = [
        kill
        for name, whole in wholes.items()
        for kill in kills_of(VERBS[name], whole, math.ceil(each * VERBS[name].weight), random.Random(given.seed))
    ]

    def problems(kill: Kill, own: Path) -> list[str]:
        return problems_after(kill, root, wholes[kill.verb.name], own)

    return Plan(kills, lambda kill: kill.verb.name, problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return 1 if something did not hold."""
    return run_campaign("kills", __doc__, arguments, count=500, kinds=VERBS, plan=_plan)


if __name__ == "__main__":
    sys.exit(main())
