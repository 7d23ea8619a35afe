"""Run two commands at once that write to one place, or of which one reads what the other writes.

    cd tests && python -m campaigns.concurrency [--count 60] [--seed 0] [--only PAIR ...] [--processes 1] [--keep]

Of two that make one folder, exactly one succeeds and the other is refused in a sentence; with --overwrite both may, one
after the other. Of two that add to one folder, what both added is there. What is there is whole and is what one of them
makes alone, and nothing else is left. The campaign ends with an error unless all of that holds.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns.command import Plan, run_campaign
from campaigns.forked import Job, Outcome, finish, run, start
from campaigns.situation import DATA, DONE, TRAIN, copied, done, prepare
from whet.errors import WhetError
from whet.evaluation.records import trials
from whet.models import artifact
from whet.models.manifest import read_manifest
from whet.utils.files import digest
from whet.utils.manifests import is_artifact

__all__ = ["PAIRS", "Pair", "problems_of", "weights_alone"]

SVD = ("compress", "ft", "--method", "svd", "--keep", ".5", "--out", "o")
KFAC = ("compress", "ft", "--method", "kfac", "--keep", ".5", *DATA, "--out", "o")
TUNED = ("finetune", "base", *TRAIN, "--out", "o")
STUDENT = ("distill", "ft", "--student", "layer_subset:top:1", *TRAIN, "--cache", "cache", "--out", "o")
MEASURED = ("measure", "ft", "kf", *DATA, "--dev-file", "dev.csv", "--rounds", "6")
SEARCH = ("search", "ft", *DATA, "--dev-file", "dev.csv", "--runtime", "pytorch", "--time", "30s", "--out", "o")


@dataclass(frozen=True)
class Pair:
    """Two commands at once."""

    first: Sequence[str]
    second: Sequence[str]
    both: bool = False
    """Whether both may succeed."""
    out: str = "o"
    """The folder that both write."""


PAIRS = {
    "compress, compress": Pair(SVD, KFAC),
    "compress, compress with --overwrite": Pair((*SVD, "--overwrite"), (*KFAC, "--overwrite"), both=True),
    "finetune, finetune with another seed": Pair((*TUNED, "--seed", "0"), (*TUNED, "--seed", "1")),
    "finetune, compress": Pair(TUNED, SVD),
    "distill, distill": Pair((*STUDENT, "--seed", "0"), (*STUDENT, "--seed", "1")),
    "distill, distill with one cache": Pair(STUDENT, (*STUDENT[:-1], "p"), both=True),
    "search, search": Pair(SEARCH, SEARCH),
    "search, compress with --overwrite": Pair(SEARCH, (*SVD, "--overwrite")),
    "export, export": Pair(("export", "kf", "--to", "onnx"), ("export", "kf", "--to", "openvino"), both=True, out="kf"),
    "measure, measure": Pair(MEASURED, MEASURED, both=True, out="kf"),
    "measure, measure to one folder": Pair((*MEASURED, "--out", "o"), (*MEASURED, "--out", "o")),
    "measure, export": Pair(MEASURED, ("export", "kf", "--to", "onnx"), both=True, out="kf"),
    "report, report": Pair(("report", "measured", "--out", "o"), ("report", "measured", "--out", "o"), both=True),
}


def weights_alone(pair: Pair, root: Path, scratch: Path) -> set[str]:
    """Return the digests of the weights that each command of a pair makes alone; empty if they make none."""
    digests = set()
    for i, words in enumerate((pair.first, pair.second)):
        folder = copied(root, scratch / f"alone.{i}")
        done(run(Job(argv=words, folder=folder, streams=scratch / "streams")))
        digests |= _weights(folder / pair.out)
    return digests


def problems_of(pair: Pair, wait: float, alone: set[str], root: Path, scratch: Path) -> list[str]:
    """Run a pair in a copy of a situation, and return what does not hold.

    Args:
        pair: the commands.
        wait: seconds between their beginnings.
        alone: see `weights_alone`.
        root: the situation.
        scratch: a folder to work in.
    """
    folder = copied(root, scratch / "both")
    jobs = [
        Job(argv=words, folder=folder, streams=scratch / f"streams.{i}")
        for i, words in enumerate((pair.first, pair.second))
    ]
    before = len(trials(folder / "kf"))
    first = start(jobs[0])
    time.sleep(wait)
    second = start(jobs[1])
    outcomes = [finish(first, jobs[0]), finish(second, jobs[1])]
    problems = [problem for outcome in outcomes for problem in _told_badly(outcome)]
    codes = [outcome.code for outcome in outcomes]
    if DONE.isdisjoint(codes):
        problems.append(f"none succeeded: {[outcome.sentence for outcome in outcomes]}")
    if DONE.issuperset(codes) and not pair.both:
        problems.append("both succeeded, and one result is lost")
    out = folder / pair.out
    if is_artifact(out):
        problems += _unfit(out, alone)
    if pair.first is MEASURED and (added := len(trials(folder / "kf")) - before) != _rows(pair, codes):
        problems.append(f"{added} rows were added")
    if hidden := [str(path.relative_to(folder)) for path in folder.rglob(".*")]:
        problems.append(f"left behind: {hidden}")
    return problems


def _rows(pair: Pair, codes: Sequence[int]) -> int:
    """How many rows the successful calls record in `kf`."""
    return sum(
        words[0] == "measure" and code == 0 for words, code in zip((pair.first, pair.second), codes, strict=True)
    )


def _told_badly(outcome: Outcome) -> list[str]:
    if outcome.hanging:
        return [f"it hangs: {outcome.sentence}"]
    if outcome.has_traceback or outcome.code not in {2, *DONE}:
        return [f"it ended with {outcome.code}: {outcome.sentence}"]
    if outcome.code == 2 and not outcome.sentence.startswith("OutputExists: "):
        return [f"it says another reason: {outcome.sentence}"]
    return []


def _unfit(out: Path, alone: set[str]) -> list[str]:
    try:
        artifact.verify(out)
        for target in read_manifest(out).exports:
            artifact.exported(out, *target.split(" "))
    except WhetError as error:
        return [f"it is broken: {error}"]
    return [] if not alone or _weights(out) <= alone else ["its weights are those of none of them"]


def _weights(folder: Path) -> set[str]:
    return {digest(path) for path in folder.glob("model.safetensors")}


def _plan(given: argparse.Namespace, scratch: Path) -> Plan:
    root, chance = prepare(scratch), random.Random(given.seed)
    alone = {name: weights_alone(PAIRS[name], root, scratch / name) for name in given.only}
    cases = [(given.only[i % len(given.only)], chance.uniform(0, 1)) for i in range(given.count)]

    def problems(case: tuple[str, float], own: Path) -> list[str]:
        name, wait = case
        return problems_of(PAIRS[name], wait, alone[name], root, own)

    return Plan(cases, lambda case: case[0], problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return 1 if something did not hold."""
    return run_campaign("concurrency", __doc__, arguments, count=60, kinds=PAIRS, plan=_plan)


if __name__ == "__main__":
    sys.exit(main())
