import json
import math

import numpy as np
import pytest
from scipy import stats

from whet.errors import InvalidParameter
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.significance import bootstrap, mcnemar, paired_bootstrap, paired_factor, paired_ratio


def test_bootstrap_intervals_of_normal_means_hold_the_truth_about_19_times_in_20():
    held = 0
    for trial in range(200):
        sample = np.random.default_rng(trial).normal(3.0, 2.0, size=60)
        _, low, high = bootstrap(lambda drawn, sample=sample: float(sample[drawn].mean()), len(sample), seed=trial)
        held += low <= 3.0 <= high
    # percentile intervals of 60 values are a little narrow; 200 trials have a standard error of 1.6 points
    assert 0.89 <= held / 200 <= 0.985


def test_bootstrap_intervals_of_means_are_as_wide_as_theory_says():
    sample = np.random.default_rng(0).normal(size=400)
    _, low, high = bootstrap(lambda drawn: float(sample[drawn].mean()), len(sample), seed=0)
    assert high - low == pytest.approx(2 * 1.96 * sample.std() / math.sqrt(400), rel=0.1)


def test_bootstrap_depends_on_the_seed_alone():
    sample = np.random.default_rng(0).normal(size=30)

    def mean(drawn):
        return float(sample[drawn].mean())

    assert bootstrap(mean, 30, seed=1) == bootstrap(mean, 30, seed=1) != bootstrap(mean, 30, seed=2)


def test_a_factor_is_paired_and_above_one_where_the_model_is_better():
    random = np.random.default_rng(0)
    baseline = random.normal(3, 1, size=200)
    worse, noisy = baseline + 0.02, baseline + random.normal(0, 0.01, size=200)

    def compared(model):
        means = [lambda drawn, of=of: float(np.exp(of[drawn].mean())) for of in (model, baseline)]
        return paired_factor(*means, 200, seed=0)

    found = compared(worse)
    assert found.kind == "ratio" and found.value == pytest.approx(math.exp(-0.02))
    assert found.low == pytest.approx(found.high)  # every example lost the same, however different they are
    assert found.p_value < 0.01 < compared(noisy).p_value
    assert found.gain.value == pytest.approx(math.exp(-0.02) - 1) and found.gain.kind == "difference"


def exact_two_sided(gained: int, lost: int) -> float:
    """Twice the smaller tail of a fair coin, written out."""
    tosses, fewer = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(math.comb(tosses, i) for i in range(fewer + 1)) / 2**tosses)


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (1, 5), (3, 11), (20, 4), (6, 6), (0, 10)])
def test_mcnemar_is_a_coin_toss_over_the_examples_on_which_they_differ(gained: int, lost: int):
    both = 50
    right = np.array([True] * both + [True] * gained + [False] * lost)
    baseline = np.array([True] * both + [False] * gained + [True] * lost)
    found = mcnemar(right, baseline)
    assert found.p_value == pytest.approx(exact_two_sided(gained, lost))
    assert found.p_value == pytest.approx(stats.binomtest(gained, gained + lost, 0.5).pvalue)
    assert found.value == pytest.approx(right.mean() - baseline.mean())
    assert found.low <= found.value <= found.high
    back = mcnemar(baseline, right)
    assert (back.value, back.p_value) == (pytest.approx(-found.value), pytest.approx(found.p_value))


def test_mcnemar_ignores_the_examples_on_which_they_agree():
    right, baseline = np.array([True] * 3 + [False] * 9), np.array([False] * 3 + [True] * 9)
    more = np.array([True, False] * 200)
    alone = mcnemar(right, baseline)
    assert mcnemar(np.r_[right, more], np.r_[baseline, more]).p_value == alone.p_value


def test_mcnemar_of_a_model_with_itself_is_certain_of_nothing():
    right = np.random.default_rng(0).random(40) < 0.7
    found = mcnemar(right, right)
    assert (found.value, found.p_value) == (0, 1) and found.low == -found.high and not found.significant
    # as much as the rule of three: no difference among 40 leaves room for 3 in 40
    assert found.high == pytest.approx(3 / 40, rel=0.15)


def test_the_interval_of_two_accuracies_holds_the_truth_where_few_answers_differ():
    """One answer in a hundred is lost and none gained; resamples of 200 examples hold that in 87 % of the cases."""
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        lost = random.random(200) < 0.01
        found = mcnemar(~lost, np.ones(200, bool))
        held += found.low <= -0.01 <= found.high
    assert held > 940
    one = np.arange(200) == 0
    assert mcnemar(np.ones(200, bool), ~one).low < -0.01


def compared(shift: float, *, seed: int, count: int = 100) -> Comparison:
    random = np.random.default_rng(seed)
    baseline = random.normal(size=count)
    model = baseline + random.normal(shift, 1.0, size=count)
    return paired_bootstrap(
        lambda drawn: float(model[drawn].mean()), lambda drawn: float(baseline[drawn].mean()), count, seed=seed
    )


def test_paired_bootstrap_sees_real_differences():
    for shift in (0.7, -0.7):
        found = compared(shift, seed=0)
        assert found.p_value < 0.01
        assert found.significant
        assert found.low <= found.value <= found.high
        assert found.low * found.high > 0
        assert found.value == pytest.approx(shift, abs=0.3)


def test_paired_bootstrap_seldom_sees_differences_where_there_are_none():
    found = [compared(0.0, seed=seed, count=60).significant for seed in range(100)]
    assert sum(found) <= 13  # 5 expected; the binomial tail above 13 is below a thousandth


def test_paired_bootstrap_draws_the_same_examples_for_both():
    # each alone varies wildly, their difference never does
    sample = np.random.default_rng(0).normal(0, 100, size=50)
    found = paired_bootstrap(
        lambda drawn: float((sample[drawn] + 0.5).mean()), lambda drawn: float(sample[drawn].mean()), 50, seed=0
    )
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.p_value == pytest.approx(2 / 1001)


def test_paired_bootstrap_of_equal_statistics_has_p_one():
    sample = np.random.default_rng(0).normal(size=20)

    def mean(drawn):
        return float(sample[drawn].mean())

    found = paired_bootstrap(mean, mean, 20, seed=0)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_paired_ratio_recovers_a_known_ratio_under_shared_drift():
    random = np.random.default_rng(0)
    drift = random.uniform(1.0, 5.0, size=40)  # a busy machine slows both in the same round
    baseline = 2.5 * drift * random.normal(1, 0.01, size=40)
    model = drift * random.normal(1, 0.01, size=40)
    found = paired_ratio(baseline, model, seed=0)
    assert found.low <= 2.5 <= found.high
    assert found.high - found.low < 0.05
    assert found.p_value < 1e-6
    back = paired_ratio(model, baseline, seed=0)
    assert back.value == pytest.approx(1 / found.value, rel=1e-3)


def test_paired_ratio_does_not_depend_on_the_unit_of_time():
    random = np.random.default_rng(1)
    baseline, model = random.uniform(1, 2, size=12), random.uniform(1, 2, size=12)
    milliseconds = paired_ratio(baseline * 1024, model * 1024, seed=3)
    assert milliseconds == paired_ratio(baseline, model, seed=3)


def test_paired_ratio_of_equal_times_is_one_and_not_real():
    times = [1.0, 2.0, 3.0, 2.0]
    found = paired_ratio(times, times, seed=0)
    assert (found.value, found.low, found.high, found.p_value) == (1, 1, 1, 1)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_paired_ratio_takes_few_rounds_and_ties(rounds: int):
    found = paired_ratio([2.0] * rounds, [1.0] * rounds, seed=0)
    assert found.value == 2
    assert 0 < found.p_value <= 1


def measurement(**changes) -> Measurement:
    entry = {
        "metric": "accuracy",
        "value": 0.9,
        "unit": "",
        "low": 0.85,
        "high": 0.94,
        "n": 872,
        "better": "higher",
        "conditions": {"batch": 8, "shape": [1, 128]},
    }
    return Measurement(**{**entry, **changes})


VERSUS = Comparison(kind="difference", value=-0.01, low=-0.02, high=0.001, p_value=0.07, test="McNemar, exact")


@pytest.mark.parametrize("versus", [None, VERSUS])
def test_measurements_survive_json(versus: Comparison | None):
    original = measurement(versus=versus)
    assert Measurement.from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_counts_are_exact():
    count = Measurement.count("parameters", 109, "")
    assert (count.low, count.value, count.high, count.n, count.better) == (109, 109, 109, 1, "lower")
    assert Measurement.from_dict(count.to_dict()) == count


@pytest.mark.parametrize("value", [0.84, 0.95, float("nan")])
def test_the_interval_must_hold_the_value(value: float):
    with pytest.raises(InvalidParameter, match=r"low <= value <= high must hold, but got .* for accuracy; widen"):
        measurement(value=value)


@pytest.mark.parametrize(("p_value", "real"), [(0.049, True), (0.05, False), (1.0, False)])
def test_a_difference_is_real_below_five_percent(p_value: float, real: bool):
    assert Comparison(kind="ratio", value=1, low=1, high=1, p_value=p_value, test="any").significant is real
