import numpy as np
import pytest

from whet.errors import UnknownName
from whet.evaluation.frontier import Frontier
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial

AXES = ("accuracy", "latency")


def trial(name: str, accuracy: float, latency: float) -> Trial:
    quality = Measurement.count("accuracy", accuracy, "", better="higher")
    return Trial(name, [], 0, [quality, Measurement.count("latency", latency, "ms", better="lower")])


def random_trials(count: int, seed: int) -> list[Trial]:
    random = np.random.default_rng(seed)
    # few distinct values, so that ties occur
    return [trial(str(i), *random.integers(0, 6, size=2).astype(float)) for i in range(count)]


def better(a: Trial, b: Trial) -> bool:
    """The definition: as good on both axes and better on one."""
    gain, saved = a.get("accuracy").value - b.get("accuracy").value, b.get("latency").value - a.get("latency").value
    return gain >= 0 and saved >= 0 and gain + saved > 0


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_is_what_nothing_dominates(seed: int):
    trials = random_trials(25, seed)
    kept = Frontier.of(trials, AXES).trials
    for one in trials:
        assert (one in kept) is not any(better(other, one) for other in trials)


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_has_itself_as_frontier_and_the_order_does_not_matter(seed: int):
    trials = random_trials(25, seed)
    found = Frontier.of(trials, AXES)
    assert Frontier.of(found.trials, AXES) == found
    turned = Frontier.of(trials[::-1], AXES)
    assert {one.name for one in turned.trials} == {one.name for one in found.trials}


@pytest.mark.parametrize("seed", range(5))
def test_it_goes_from_best_to_worst_on_the_first_axis_and_back_on_the_second(seed: int):
    trials = random_trials(25, seed)
    accuracies = [one.get("accuracy").value for one in Frontier.of(trials, AXES).trials]
    latencies = [one.get("latency").value for one in Frontier.of(trials, AXES).trials]
    assert accuracies == sorted(accuracies, reverse=True)
    assert latencies == sorted(latencies, reverse=True)
    by_latency = [one.get("latency").value for one in Frontier.of(trials, AXES[::-1]).trials]
    assert by_latency == sorted(by_latency)


def test_equals_do_not_drive_each_other_out():
    trials = [trial("a", 0.9, 10.0), trial("b", 0.9, 10.0), trial("c", 0.9, 11.0)]
    assert [one.name for one in Frontier.of(trials, AXES).trials] == ["a", "b"]


def test_one_axis_keeps_the_best_alone_and_none_keeps_all():
    trials = random_trials(25, 0)
    best = max(one.get("accuracy").value for one in trials)
    assert {one.get("accuracy").value for one in Frontier.of(trials, AXES[:1]).trials} == {best}
    assert len(Frontier.of(trials, ()).trials) == 25
    assert Frontier.of([], AXES).trials == ()


def test_an_axis_that_was_not_measured_is_refused():
    with pytest.raises(UnknownName, match="'memory'; choose one of accuracy, latency"):
        Frontier.of([trial("a", 1.0, 1.0)], ("accuracy", "memory"))
