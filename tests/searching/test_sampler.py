import sys
from pathlib import Path

import numpy as np
import pytest

from searches import drop_of, speed_of
from whet.errors import InvalidData, InvalidParameter
from whet.searching.sampler import Sampler, require_optuna
from whet.searching.space import LESS, TABLES, Space, Structure
from whet.searching.storage import FAILED, FINISHED, PRUNED, SearchTrial

SMALL = Space()


def proposals(place: Path, space: Space = SMALL, worker: str = "me") -> Sampler:
    return Sampler(place / "journal", space, seed=0, worker=worker)


def finished(proposal, value: float | None = 1.0, state: str = FINISHED) -> SearchTrial:
    return SearchTrial(*proposal, recipe=[], state=state, value=value)


def explore(own: Sampler, attempts: list[SearchTrial], count: int, value=lambda structure: 1.0) -> list[SearchTrial]:
    for _ in range(count):
        one = own.next(attempts)
        if one is None:
            break
        attempts.append(finished(one, value(one.structure)))
        own.finish(attempts[-1])
    return attempts


def test_known_good_ones_come_first(tmp_path):
    own = proposals(tmp_path, Space())
    found = explore(own, [], 5, lambda one: 1.0 if one.blocks < 5 else -1.0)
    assert [one.structure.blocks for one in found] == [0, 7, 4, 6, 5]


def test_every_structure_is_tried_once_and_then_no_more(tmp_path):
    attempts = explore(proposals(tmp_path), [], 100)
    structures = [one.structure for one in attempts]
    assert sorted(structures) == sorted(SMALL.every())
    assert len({one.number for one in attempts}) == len(attempts)
    again = proposals(tmp_path)
    assert again.next(attempts) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_dozen_structures_find_most_of_what_all_of_them_would(tmp_path, seed):
    """At least 90 % of the best speed above the bar, for quality that falls more or less steeply."""
    random, space = np.random.default_rng(seed), Space(recovery=1.0, table=True)
    steepness, noise = random.uniform(0.15, 1.5), random.normal(scale=0.05, size=(len(LESS), len(TABLES), 2))

    def value(structure: Structure) -> float:
        drop = steepness * drop_of(structure) + float(noise[structure]) + 0.5
        return speed_of(structure) if drop < 1 else 1 - drop

    found = explore(proposals(tmp_path, space), [], 12, value)
    assert max(map(value, space.every())) * 0.9 <= max(one.value or 0 for one in found)


@pytest.mark.parametrize("seed", range(3))
def test_the_sampler_looks_where_it_was_good(tmp_path, monkeypatch, seed):
    """The best of 42, to which values rise, is among the first ten; drawn at random, it would be once in four times."""
    monkeypatch.setattr(Space, "promising", lambda *_: None)
    own = Sampler(tmp_path / "journal", Space(table=True), seed=seed, worker="me")
    found = explore(own, [], 10, lambda one: 20.0 + 7 * one.table - one.blocks)
    assert Structure(0, len(TABLES) - 1) in [one.structure for one in found]


def test_two_workers_do_not_try_the_same(tmp_path):
    one, two = proposals(tmp_path, worker="one"), proposals(tmp_path, worker="two")
    given = [worker.next([]) for worker in (one, two, one, two)]
    assert len({proposal.structure for proposal in given}) == len({proposal.number for proposal in given}) == 4
    assert one.at_work() == two.at_work() == {proposal.number for proposal in given}


@pytest.mark.parametrize("state", [FINISHED, PRUNED, FAILED])
def test_what_was_finished_before_the_journal_knew_counts(tmp_path, state):
    killed = proposals(tmp_path)
    proposal = killed.next([])
    attempts = [finished(proposal, 1.0 if state == FINISHED else None, state)]
    own = proposals(tmp_path, worker="later")
    own.take_up(attempts, set())
    assert not own.at_work()
    assert state != FINISHED or own._study.best_value == 1.0
    own.take_up(attempts, set())  # once more changes nothing
    rest = explore(own, list(attempts), 100)
    assert [one.structure for one in rest].count(proposal.structure) == 1


def test_what_was_not_finished_is_tried_again(tmp_path):
    killed = proposals(tmp_path)
    first, second = killed.next([]), killed.next([])
    own = proposals(tmp_path, worker="later")
    own.take_up([], {"me"})  # which is alive
    assert own.at_work() == {first.number, second.number}
    own.take_up([], set())
    assert not own.at_work()
    assert {own.next([]).structure for _ in range(2)} == {first.structure, second.structure}
    assert sorted(one.structure for one in explore(own, [], 100)) == sorted(
        set(SMALL.every()) - {first.structure, second.structure}
    )


def test_what_is_given_back_is_tried_again(tmp_path):
    own = proposals(tmp_path)
    first = own.next([])
    own.give_back(first)
    again = own.next([])
    assert again.structure == first.structure and again.number != first.number


def test_a_line_that_was_cut_short_is_no_harm(tmp_path):
    own = proposals(tmp_path)
    attempts = explore(own, [], 2)
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    later = proposals(tmp_path)
    rest = explore(later, list(attempts), 2)
    assert len(rest) == 4
    assert len(explore(proposals(tmp_path), list(rest), 100)) == len(SMALL.every())


@pytest.mark.parametrize("content", [b"no journal\n", b"{}\n", b'{"op_code":0}\n'])
def test_what_is_no_journal_is_answered(tmp_path, content):
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(InvalidData, match=r"journal must be the journal of a search, .*--overwrite"):
        proposals(tmp_path)


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InvalidParameter, match=r"pip install 'whet\[search\]'"):
        require_optuna()
