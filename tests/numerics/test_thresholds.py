"""Thresholds of confidence: the exact bound, the test in a fixed sequence, and that the guarantee holds."""

import numpy as np
import pytest
from scipy.stats import binom

from whet.numerics.thresholds import SEQUENCE, examples_needed, most_permissive, upper_bound


@pytest.mark.parametrize(("errors", "examples"), [(0, 100), (3, 100), (7, 1000), (99, 100)])
def test_the_bound_is_the_share_at_which_so_few_errors_are_rare(errors, examples):
    bound = upper_bound(errors, examples, confidence=0.95)
    assert binom.cdf(errors, examples, bound) == pytest.approx(0.05)
    assert bound > errors / examples


def test_nothing_is_shown_by_errors_alone():
    assert upper_bound(5, 5, confidence=0.95) == 1


def test_as_many_examples_are_needed_as_the_bound_says():
    least = examples_needed(0.005, confidence=0.95)
    assert least == 598
    assert upper_bound(0, least, confidence=0.95) <= 0.005 < upper_bound(0, least - 1, confidence=0.95)


def test_the_sequence_goes_down_from_almost_one_to_zero():
    assert 0.9998 < SEQUENCE[0] < 1 and 0.5 in SEQUENCE and SEQUENCE[-1] == 0
    assert list(SEQUENCE) == sorted(SEQUENCE, reverse=True)


def test_the_lowest_threshold_before_the_first_failure_is_taken():
    sure = np.linspace(0.5, 1, 2000)
    differs = sure < 0.8
    found = most_permissive(sure, differs, share=0.01, confidence=0.95)
    below = SEQUENCE[SEQUENCE.index(found) + 1]
    assert upper_bound(int((differs & (sure >= found)).sum()), 2000, confidence=0.95) <= 0.01
    assert upper_bound(int((differs & (sure >= below)).sum()), 2000, confidence=0.95) > 0.01
    assert most_permissive(sure, np.ones(2000, bool), share=0.0001, confidence=0.95) is None


def test_more_differ_than_was_asked_in_at_most_one_of_twenty_samples():
    """Fresh samples of answers that are wrong as often as their confidence says; the true share follows from it."""
    random, asked, runs, broken = np.random.default_rng(0), 0.02, 400, 0
    population = random.beta(8, 1, size=200_000) / 2 + 0.5
    for _ in range(runs):
        sure = random.choice(population, size=800)
        found = most_permissive(sure, random.random(800) > sure, share=asked, confidence=0.95)
        true = 0.0 if found is None else float(((1 - population) * (population >= found)).mean())
        broken += true > asked
    assert 0 < broken / runs <= 0.05
