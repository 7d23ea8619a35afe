"""Which structure comes next: bisection, neighbours, the rest; a function of what is recorded."""

from collections.abc import Callable

import numpy as np
import pytest

from searches import drop_of, speed_of
from whet.searching.sampler import next_structure
from whet.searching.space import LESS, TABLES, Space, Structure

SMALL = Space()
LINE = [Structure(blocks) for blocks in range(len(LESS))]
Value = Callable[[Structure], float]


def tried(space: Space, count: int, value: Value = lambda structure: 1.0, *, seed: int = 0, workers: int = 1):
    """The outcomes of a search, in the order in which its structures were tried, so many at a time."""
    values: dict[Structure, float] = {}
    while len(values) < count:
        running: list[Structure] = []
        for _ in range(workers):
            structure = next_structure(space, values, running=running, seed=seed)
            if structure is not None:
                assert structure not in values and structure not in running
                running.append(structure)
        if not running:
            break
        values |= {structure: value(structure) for structure in running}
    return values


def bounds(values: dict[Structure, float]) -> tuple[int, int]:
    """The last structure of the line that holds the bar, and the first that does not."""
    good = [LINE.index(structure) for structure, value in values.items() if value > 0]
    bad = [LINE.index(structure) for structure, value in values.items() if value <= 0]
    return max(good, default=-1), min(bad, default=len(LINE))


@pytest.mark.parametrize("good", range(1, len(LINE) + 1))
def test_bisection_finds_where_quality_crosses_the_bar(good):
    """Of fourteen structures, five at most are tried."""
    values: dict[Structure, float] = {}
    while len(values) < 2 or bounds(values)[1] - bounds(values)[0] > 1:
        structure = next_structure(SMALL, values, seed=0)
        assert structure in LINE and structure not in values
        values[structure] = 1.0 if LINE.index(structure) < good else -1.0
        if good == len(LINE) and bounds(values)[0] == good - 1:
            break
    assert len(values) <= 5
    assert bounds(values) == (good - 1, good)


def test_bisection_begins_with_the_whole_model():
    values = tried(Space(), 5, lambda structure: 1.0 if structure.blocks < 5 else -1.0)
    assert [structure.blocks for structure in values] == [0, 7, 4, 6, 5]


def test_a_recovery_goes_on_where_the_bar_was_crossed():
    values = {structure: 4.0 if structure.blocks < 5 else -1.0 for structure in LINE}
    for blocks in (5, 10, 8, 9):
        structure = next_structure(Space(recovery=0.5), values, seed=0)
        assert structure == Structure(blocks, 0, 1)
        values[structure] = 5.0 if blocks < 9 else -1.0


def test_the_whole_model_is_not_recovered():
    assert next_structure(Space(recovery=0.5), {Structure(): -1.0}, seed=0) == Structure(1, 0, 1)


def test_then_come_the_neighbours_of_the_best():
    values = {structure: float(structure.blocks + 1) if structure.blocks < 4 else -1.0 for structure in LINE}
    space = Space(table=True)
    first = next_structure(space, values, seed=0)
    assert first == Structure(3, 1)
    values[first] = 99.0  # a better one has neighbours of its own; (4, 1) removes more than (4, 0), which failed
    assert {next_structure(space, values, seed=seed) for seed in range(20)} == {Structure(3, 2)}  # the smallest first
    values[Structure(3, 2)] = -1.0
    assert next_structure(space, values, seed=0) == Structure(2, 2)  # less of the blocks for more of the table
    values[first] = -1.0  # and what removes more than this has no hope
    assert next_structure(space, values, seed=0) == Structure(2, 1)


def test_what_removes_no_less_than_a_failure_comes_last():
    bisected, space = 5, Space(table=True)
    values = tried(space, 100, lambda structure: 1.0 if structure.blocks + 2 * structure.table < 7 else -1.0)
    order = list(values)

    def hopeless(i: int) -> bool:
        failed = [structure for structure in order[:i] if values[structure] < 0]
        return any(order[i].blocks >= one.blocks and order[i].table >= one.table for one in failed)

    verdicts = [hopeless(i) for i in range(bisected, len(order))]
    assert verdicts == sorted(verdicts) and {False, True} == set(verdicts)
    assert len(order) == len(space.every())


def test_a_recovery_may_save_what_failed():
    values = tried(Space(recovery=0.5), 100, lambda structure: 1.0 if structure.recovery else -1.0)
    recovered = [structure.recovery for structure in values]
    assert recovered.index(1) == 1 and sum(recovered[1 : len(LINE) + 1]) >= len(LINE) - 1


@pytest.mark.parametrize("space", [SMALL, Space(recovery=1.0, table=True), Space(blocks=False, table=True)])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_every_structure_is_tried_once_and_then_no_more(space, value):
    values = tried(space, 1000, lambda structure: value)
    assert sorted(values) == sorted(space.every())
    assert next_structure(space, values, seed=0) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_dozen_structures_find_most_of_what_all_of_them_would(seed):
    """At least 90 % of the best speed above the bar, for quality that falls more or less steeply."""
    random, space = np.random.default_rng(seed), Space(recovery=1.0, table=True)
    steepness, noise = random.uniform(0.15, 1.5), random.normal(scale=0.05, size=(len(LESS), len(TABLES), 2))

    def value(structure: Structure) -> float:
        drop = steepness * drop_of(structure) + float(noise[structure]) + 0.5
        return speed_of(structure) if drop < 1 else 1 - drop

    best = max(map(value, space.every()))
    assert max(tried(space, 12, value, seed=seed).values()) >= 0.9 * best
    # (two workers know less when they choose)
    assert max(tried(space, 16, value, seed=seed, workers=2).values()) >= 0.9 * best


@pytest.mark.parametrize("seed", range(3))
def test_it_looks_where_it_was_good(seed):
    """The best of 42, to which values rise, is among the first ten; drawn at random, it would be once in four times."""
    values = tried(Space(table=True), 10, lambda one: 20.0 + 7 * one.table - one.blocks, seed=seed)
    assert Structure(0, len(TABLES) - 1) in values


def test_workers_do_not_try_the_same():
    running: list[Structure] = []
    for _ in range(len(LINE)):
        structure = next_structure(SMALL, {}, running=running, seed=0)
        assert structure is not None and structure not in running
        running.append(structure)
    assert next_structure(SMALL, {}, running=running, seed=0) is None


def test_what_is_running_is_taken_to_hold_the_bar():
    """A second worker bisects where the first would go on if its structure held the bar."""
    held = {Structure(): 1.0}
    first = next_structure(SMALL, held, seed=0)
    assert first is not None
    assert next_structure(SMALL, held, running=[first], seed=0) == next_structure(SMALL, {**held, first: 1.0}, seed=0)
    # but no neighbours of it are tried before those of what is known to be good
    values = {structure: float(structure.blocks + 1) if structure.blocks < 4 else -1.0 for structure in LINE}
    assert next_structure(Space(table=True), values, running=[Structure(0, 1)], seed=0) == Structure(3, 1)


def test_the_seed_alone_decides_among_equals():
    searches = [[tuple(tried(Space(table=True), 42, seed=seed)) for seed in range(3)] for _ in range(2)]
    assert searches[0] == searches[1] and len(set(searches[0])) == 3
