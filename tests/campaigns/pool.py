"""Try cases in forked processes, with a line for each that fails."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

__all__ = ["in_processes"]

Case = TypeVar("Case")
_CASES: Sequence = ()
_TRY: Callable[..., list[str]] = lambda case: []  # noqa: E731  # forked processes find here what they are to do


def in_processes(attempt: Callable[[Case], list[str]], cases: Sequence[Case], *, processes: int) -> list[list[str]]:
    """Return the problems of each case; they are printed as they are found.

    Cases may hold functions: forked processes get their numbers alone.
    """
    global _TRY, _CASES
    _TRY, _CASES = attempt, cases
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        return [_told(number, problems) for number, problems in enumerate(pool.map(_tried, range(len(cases))))]


def _tried(number: int) -> list[str]:
    return _TRY(_CASES[number])


def _told(number: int, problems: list[str]) -> list[str]:
    if problems:
        print(f"FAILS  {_CASES[number]}\n" + "".join(f"       {problem}\n" for problem in problems), flush=True)
    elif number % 50 == 49:
        print(f"{number + 1} tried", file=sys.stderr, flush=True)
    return problems
