"""Metrics of sets of labels against worked values and against scikit-learn."""

import numpy as np
import pytest

from whet.evaluation.metrics.base import quality_named
from whet.evaluation.significance import paired_bootstrap
from whet.tasks.encoding import label_array
from whet.tasks.kinds.base import all_kinds, kind_of_metric

METRICS = ("micro_f1", "macro_label_f1", "mean_average_precision")


def sets(*rows):
    """The labels of examples as a task holds them."""
    return label_array([tuple(float(value) for value in row) for row in rows])


def drawn(seed: int, texts: int = 60, labels: int = 5):
    """Labels, of which the last never occurs, and probabilities with many equal ones."""
    random = np.random.default_rng(seed)
    true = random.random((texts, labels)) < 0.5 * random.random(labels)
    true[:, -1] = False
    return true, np.round(random.random((texts, labels)), 1 + seed % 2 * 7)


TRUE = sets((1, 0, 0), (1, 1, 0), (0, 0, 0), (0, 1, 0))
SAID = np.array([[0.9, 0.6, 0.1], [0.4, 0.8, 0.2], [0.7, 0.1, 0.3], [0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        # right: joy in 1, love in 2; given besides: love in 1, joy in 3; missing: joy in 2, love in 4
        ("micro_f1", 2 * 2 / (4 + 4)),
        ("macro_label_f1", (2 * 1 / (2 + 2) + 2 * 1 / (2 + 2)) / 2),
        # joy: ranks 1 and 3, precisions 1 and 2/3; love: ranks 1 and 3, precisions 1 and 2/3
        ("mean_average_precision", (1 + 2 / 3) / 2),
    ],
)
def test_worked_values(metric, value):
    assert quality_named(metric).score(TRUE, SAID) == pytest.approx(value)


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_model_has_one_and_an_idle_one_none(metric):
    true, _ = drawn(0)
    assert quality_named(metric).score(sets(*true), np.where(true, 0.9, 0.1)) == 1
    if "precision" not in metric:
        assert quality_named(metric).score(sets(*true), np.full(true.shape, 0.5)) == 0


@pytest.mark.parametrize("seed", range(6))
def test_they_are_those_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn must be installed to compare with")
    true, said = drawn(seed)
    given, occurring = said > 0.5, true.any(0)
    assert given.any(0).all() and not occurring.all()
    expected = {
        "micro_f1": metrics.f1_score(true, given, average="micro"),
        "macro_label_f1": metrics.f1_score(true, given, average="macro"),
        "mean_average_precision": metrics.average_precision_score(true[:, occurring], said[:, occurring]),
    }
    found = {metric: quality_named(metric).score(sets(*true), said) for metric in METRICS}
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_resampling_scores_what_is_drawn(metric):
    true, said = drawn(1)
    quality, labels = quality_named(metric), sets(*true)
    statistic = quality.statistic(labels, said)
    for seed in range(5):
        chosen = np.random.default_rng(seed).integers(len(labels), size=len(labels))
        assert statistic(chosen) == pytest.approx(quality.score(labels[chosen], said[chosen]), abs=1e-12)
    other = np.roll(said, 1, axis=1)
    slow = paired_bootstrap(
        lambda chosen: quality.score(labels[chosen], said[chosen]),
        lambda chosen: quality.score(labels[chosen], other[chosen]),
        len(labels),
        seed=0,
    )
    assert quality.compare(labels, said, other, seed=0).value == pytest.approx(slow.value)
    assert quality.compare(labels, said, other, seed=0).low == pytest.approx(slow.low)


@pytest.mark.parametrize("metric", METRICS)
def test_a_label_that_the_data_lack_is_a_mistake_where_it_is_given(metric):
    """The model's further outputs come last."""
    quality = quality_named(metric)
    alone = quality.score(TRUE, SAID)
    silent, loud = (np.column_stack([SAID, np.full(4, value)]) for value in (0.1, 0.9))
    assert quality.score(TRUE, silent) == alone
    assert quality.score(TRUE, loud) < alone or metric == "mean_average_precision"


def test_they_belong_to_their_kind_alone():
    assert all_kinds()["multi_label"].metrics == METRICS
    for metric in METRICS:
        assert kind_of_metric(metric).name() == "multi_label" and not quality_named(metric).universal
