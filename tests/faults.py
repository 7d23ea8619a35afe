"""Put each fault of `faults.toml` into a scratch copy of the source, and report which test fails.

    python tests/faults.py [--only WORDS ...] [--processes 2]

It ends with an error if a fault is not caught, if it cannot be put in because the source or the tests have changed, or
if one of the tests fails without any fault. Libraries are imported once; each fault is tried in a forked process.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import tomllib
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "studies", "benchmarks", "docs", "examples")
FILES = ("pyproject.toml", "zensical.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
TOO_LONG = 600
"""Seconds after which a test that a fault has put into a loop is ended."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Another text in the place of a piece of the source, and the tests of which one must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def problem(self) -> str | None:
        """Return why it cannot be put in."""
        path = ROOT / "src" / "whet" / self.file
        count = path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0
        if count != 1:
            return f"its old text must stand once in {self.file}, but stands {count} times"
        missing = [test for test in self.tests if not _is_there(*test.partition("::")[::2])]
        return f"there is no test {', '.join(missing)}" if missing else None

    @contextlib.contextmanager
    def put_into(self, copy: Path):
        path = copy / "src" / "whet" / self.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")


def _is_there(file: str, name: str) -> bool:
    path = ROOT / "tests" / file
    return path.is_file() and (not name or f"def {name}(" in path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Outcome:
    """What a fault did to its tests."""

    fault: Fault
    failed: tuple[str, ...]
    problem: str | None
    seconds: float


class Failures:
    """A plugin of pytest that keeps the names of tests that failed, and modules that could not be imported."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.tests.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.broken.append(report.nodeid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="faults whose name or file holds these words; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    words = given.only or [""]
    faults = [fault for fault in all_faults() if any(one in fault.name or one in fault.file for one in words)]
    sys.dont_write_bytecode = True  # two versions of a file within a second would have one name
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONDONTWRITEBYTECODE="1")
    import_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        forked = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(given.processes, mp_context=forked) as pool:
            begun = [pool.submit(tried, fault, Path(scratch)) for fault in faults]
            whole = pool.submit(passing, sorted({test for fault in faults for test in fault.tests}), Path(scratch))
            outcomes = [told(one.result()) for one in begun]
            failing = whole.result()
    missed = [one for one in outcomes if one.problem]
    for test in failing:
        print(f"FAILS WITHOUT A FAULT  {test}")
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} faults were caught; {len(failing)} tests fail without one")
    return int(bool(missed or failing))


def all_faults() -> list[Fault]:
    """Return the faults of `faults.toml`."""
    entries = tomllib.loads((ROOT / "tests" / "faults.toml").read_text(encoding="utf-8"))["fault"]
    return [Fault(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def import_libraries() -> None:
    """Import what takes long and is no part of whet, for all forked processes at once."""
    import pandas  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers

    torch.set_num_threads(1)
    for name in ("Trainer", "BertForSequenceClassification", "LlamaForSequenceClassification", "pipeline"):
        getattr(transformers, name)


def tried(fault: Fault, scratch: Path) -> Outcome:
    """Return what a fault does to its tests."""
    begun = time.monotonic()
    problem = fault.problem()
    failed: list[str] = []
    if problem is None:
        copy = own_copy(scratch)
        with fault.put_into(copy):
            failed, broken = in_a_process(copy, fault.tests)
        problem = f"BROKEN: {', '.join(broken)}" if broken else None if failed else "NOT CAUGHT"
    return Outcome(fault, tuple(failed), problem, time.monotonic() - begun)


def passing(tests: list[str], scratch: Path) -> list[str]:
    """Return the tests that fail without any fault."""
    failed, broken = in_a_process(own_copy(scratch), tests, "--maxfail=100")
    return [*failed, *broken]


def own_copy(scratch: Path) -> Path:
    """Return this process's copy of the source."""
    copy = scratch / str(os.getpid())
    if not copy.exists():
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, copy)
    return copy


def in_a_process(copy: Path, tests: Any, *options: str) -> tuple[list[str], list[str]]:
    """Run tests in a forked process; return those that failed, and modules that could not be imported."""
    result = copy / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(copy, tests, options or ("-x",), result)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    end = time.monotonic() + TOO_LONG * (10 if options else 1)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return ["(took too long)"], []
        time.sleep(0.1)
    return tuple(json.loads(result.read_text())) if result.exists() else ([], ["the process died"])


def run(copy: Path, tests: Any, options: tuple[str, ...], result: Path) -> None:
    import pytest

    os.chdir(copy)
    sys.path[:0] = [str(copy / "src"), str(copy / "tests"), str(copy / "studies"), str(copy / "docs")]
    os.environ["PYTHONPATH"] = str(copy / "src")
    failures = Failures()
    words = [
        *options,
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "--rootdir",
        str(copy),
        *(f"tests/{test}" for test in tests),
    ]
    output = copy / "output.txt"
    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = pytest.main(words, plugins=[failures])
    if code not in (0, 1) and not failures.broken:
        failures.broken.append(f"{' '.join(tests)} (pytest ended with {int(code)})")
    if failures.broken:
        print(output.read_text(encoding="utf-8"), file=sys.stderr)
    result.write_text(json.dumps([failures.tests, failures.broken]))


def told(outcome: Outcome) -> Outcome:
    """Print a line about an outcome, and return it."""
    first = outcome.failed[0].removeprefix("tests/") if outcome.failed else ""
    print(f"{outcome.problem or 'caught':<10}  {outcome.fault.name:<70} {first} {outcome.seconds:.0f}s", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
