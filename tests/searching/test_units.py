"""What a search says of metrics that are no shares: a perplexity is compared by its ratio, in per cent."""

from types import SimpleNamespace

import pytest

from whet.evaluation.formatting import gain_unit
from whet.evaluation.metrics.base import quality_named
from whet.searching.baseline import Baseline


@pytest.mark.parametrize(("metric", "unit"), [("accuracy", "points"), ("spearman", "points"), ("perplexity", "%")])
def test_the_bar_is_in_the_unit_of_the_metric(metric, unit):
    quality = quality_named(metric)
    assert gain_unit(quality.better) == unit
    assert Baseline.unit.fget(SimpleNamespace(quality=quality)) == unit
