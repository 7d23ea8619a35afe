"""The matrix of families and actions: every cell gives what docs/families.csv says, and none a traceback.

`make test` runs each action on one of a few families; `make test-all` runs all cells that the table has.
"""

from functools import cache
from pathlib import Path

import pytest

from covering import covering
from families import ACTIONS, FAMILIES, Place, read, tried

FEW = ("deberta-v2", "nomic_bert", "albert", "modernbert", "mpnet", "qwen2")
"""Families that differ from the models of `helpers`: each action runs on one of them."""
KNOWN = read()


def chosen(case: tuple[str, str]) -> bool:
    family, action = case
    return family == FEW[[*ACTIONS].index(action) % len(FEW)]


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return cache(lambda family: Place(Path(tmp_path_factory.mktemp(family)), family))


@pytest.mark.filterwarnings("default")  # libraries warn of some families
@pytest.mark.parametrize(("family", "action"), covering(KNOWN, chosen))
def test_a_cell_gives_what_the_table_says(family, action, place):
    cell = tried(place(family), family, action)
    assert cell.status == KNOWN[family, action].status, cell.said


def test_no_cell_is_a_traceback():
    broken = [cell for cell in KNOWN.values() if cell.status in ("TRACEBACK", "TIMEOUT")]
    assert not broken


def test_the_table_names_what_there_is():
    assert {family for family, _ in KNOWN} <= set(FAMILIES)
    assert {action for _, action in KNOWN} <= set(ACTIONS)
