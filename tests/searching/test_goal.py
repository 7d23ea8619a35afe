import math

import pytest

from searches import BASELINE, trial
from whet.errors import InvalidParameter
from whet.searching.goal import Goal


@pytest.mark.parametrize("bad", [0, -1, 101, math.nan, "one"])
def test_a_bar_that_is_none_is_refused(bad):
    with pytest.raises(InvalidParameter, match=r"max_drop must|< max_drop <="):
        Goal(max_drop=bad)


@pytest.mark.parametrize("bad", [{"max_size": 0}, {"max_size": -3.0}, {"best": "speed"}])
def test_other_bad_goals_are_refused(bad):
    with pytest.raises(InvalidParameter, match=f"{next(iter(bad))} must|{next(iter(bad))}"):
        Goal(**bad)


def test_the_lower_bound_decides_and_not_the_value():
    goal = Goal(max_drop=1)
    sure, lucky = trial("sure", drop=(-0.005, -0.009), speed=2), trial("lucky", drop=(0.01, -0.02), speed=4)
    assert goal.holds(sure) and not goal.holds(lucky)
    assert goal.winner([lucky, sure], BASELINE) is sure
    assert goal.winner([lucky], BASELINE) is lucky and not goal.accepts(lucky, BASELINE)


def test_the_bar_itself_is_not_above_the_bar():
    assert not Goal(max_drop=1).holds(trial("at", drop=(0.0, -0.01)))


def test_where_nothing_holds_the_nearest_is_kept():
    goal = Goal(max_drop=1)
    near, far = trial("near", drop=(-0.01, -0.02), speed=1.1), trial("far", drop=(-0.03, -0.05), speed=9)
    assert goal.winner([far, near], BASELINE) is near
    assert goal.winner([], BASELINE) is BASELINE


def test_what_is_no_better_than_the_baseline_is_not_accepted():
    slow = trial("slow", speed=0.9)
    assert Goal().holds(slow) and not Goal().accepts(slow, BASELINE)


@pytest.mark.parametrize(("best", "score"), [("latency", 3), ("size", 2), ("both", 6)])
def test_what_counts(best, score):
    assert Goal(best=best).score(trial("one", speed=3, disk=5), BASELINE) == score


def test_too_large_a_model_is_not_accepted():
    goal = Goal(max_size=6)
    small, fast = trial("small", speed=2, disk=5), trial("fast", speed=3, disk=7)
    assert goal.winner([fast, small], BASELINE) is small
    assert not goal.accepts(fast, BASELINE)
    assert goal.winner([fast, trial("huge", speed=5, disk=9)], BASELINE) is fast


def test_values_above_the_bar_exceed_all_below_it():
    goal = Goal(max_drop=1)
    assert goal.value(trial("slow", speed=0.2), BASELINE) == pytest.approx(0.2)
    assert goal.value(trial("worse", drop=(-0.02, -0.035), speed=9), BASELINE) == pytest.approx(-2.5)


def test_as_many_examples_as_it_says_would_show_it():
    """The interval of a mean shrinks with the root of the number of examples."""
    goal, versus, n = Goal(max_drop=1), (-0.002, -0.022), 400
    needed = goal.examples_needed(trial("one", drop=versus, n=n))
    low = versus[0] - (versus[0] - versus[1]) * math.sqrt(n / needed)
    assert low == pytest.approx(goal.bar, rel=1e-3) and low >= goal.bar
    assert goal.examples_needed(trial("gain", drop=(0.01, -0.02), n=400)) == 400 * 9


def test_no_number_of_examples_would_help():
    goal = Goal(max_drop=1)
    assert goal.examples_needed(trial("holds", drop=(0, -0.005))) is None
    assert goal.examples_needed(trial("worse", drop=(-0.02, -0.03))) is None


def test_below_so_many_examples_nothing_can_be_told():
    """If none of n examples changed, 95 % confidence leaves 1 - 0.05^(1/n) open."""
    for drop in (0.5, 1, 5):
        least = Goal(max_drop=drop).least_examples()
        assert 1 - 0.05 ** (1 / least) == pytest.approx(drop / 100, rel=0.03)


def test_the_frontier_has_the_axes_that_count():
    rows = [BASELINE, trial("fast", drop=(-0.01, -0.02), speed=3), trial("small", drop=(-0.01, -0.02), disk=2)]
    wanted = {"latency": ["baseline", "fast"], "size": ["baseline", "small"], "both": ["baseline", "fast", "small"]}
    for best, names in wanted.items():
        assert [one.name for one in Goal(best=best).frontier(rows).trials] == names
    assert len(Goal(max_size=5).frontier(rows).trials) == 3
