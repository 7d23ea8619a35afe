"""The mean of correlations over sets."""

import numpy as np
import pytest
from scipy import stats

from whet.evaluation.metrics.similarity import StsAverage, spearman
from whet.evaluation.significance import bootstrap
from whet.tasks.encoding import label_array
from whet.tasks.similarity import InSet


def drawn(sizes=(40, 7, 90), seed=0):
    """Labels of several sets, mixed, and predictions."""
    random = np.random.default_rng(seed)
    sets = np.repeat(["2012", "2013", "2014"], sizes)
    random.shuffle(sets)
    scores = random.integers(0, 6, size=len(sets)).astype(float)
    labels = label_array([InSet(name, score) for name, score in zip(sets, scores, strict=True)])
    return sets, scores, labels, scores + 3 * random.normal(size=len(sets))


def test_each_set_counts_alike_whatever_its_size():
    sets, scores, labels, predictions = drawn()
    each = [stats.spearmanr(scores[sets == name], predictions[sets == name]).statistic for name in np.unique(sets)]
    assert StsAverage().score(labels, predictions) == pytest.approx(np.mean(each))


def test_every_resample_has_as_many_pairs_of_each_set():
    _, _, labels, _ = drawn()
    seen = []
    strata = StsAverage().strata(labels)
    bootstrap(
        lambda chosen: seen.append(np.bincount(strata[chosen]).tolist()) or 0.0, len(labels), seed=0, strata=strata
    )
    assert {tuple(counts) for counts in seen} == {(40, 7, 90)}


def test_a_set_whose_pairs_are_scored_alike_counts_as_zero():
    assert spearman(np.ones(3), np.arange(3.0)) == spearman(np.arange(3.0), np.ones(3)) == 0.0
    assert spearman(np.arange(3.0), np.arange(3.0) ** 3) == pytest.approx(1)
