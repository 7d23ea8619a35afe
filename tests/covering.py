"""Covering sets: of a product of parameters, `make test` runs a part in which every two values still meet.

The cases outside of it carry the marker `full`, which `make test` leaves out and `make test-all` runs too.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

Case = tuple[Any, ...]


def covering(cases: Iterable[Case], chosen: Callable[[Case], bool]) -> list[Any]:
    """Return the cases for `pytest.mark.parametrize`; those that are not chosen are marked `full`."""
    return [case if chosen(case) else pytest.param(*case, marks=pytest.mark.full) for case in cases]


def rotating(rows: Sequence[Any], columns: Callable[[Any], Sequence[Any]], *, shift: int = 0) -> list[Any]:
    """Return all pairs of a row and one of its columns; the i-th row is chosen with its column i + shift alone.

    Tests of the same rows and columns with every shift cover every pair between them.
    """
    chosen = {(i, _turn(columns(row), i + shift)) for i, row in enumerate(rows)}
    numbers = {id(row): i for i, row in enumerate(rows)}
    pairs = ((row, column) for row in rows for column in columns(row))
    return covering(pairs, lambda pair: (numbers[id(pair[0])], pair[1]) in chosen)


def _turn(values: Sequence[Any], number: int) -> Any:
    return values[number % len(values)]
