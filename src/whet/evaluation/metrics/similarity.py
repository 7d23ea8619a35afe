"""How well cosines order pairs of sentences, over several sets that are each scored by themselves."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from whet.evaluation.metrics.base import Quality

__all__ = ["StsAverage"]

Array = np.ndarray[Any, Any]


class StsAverage(Quality):
    """Unweighted mean of Spearman's correlations of all sets, as published for STS 2012 to 2016."""

    name: ClassVar[str] = "sts_average"

    def score(self, labels: Array, predictions: Array) -> float:
        """See `Quality.score`; labels are `whet.tasks.similarity.InSet`."""
        return self.statistic(labels, predictions)(np.arange(len(labels)))

    def statistic(self, labels: Array, predictions: Array) -> Callable[[Array], float]:
        """See `Quality.statistic`."""
        sets = self.strata(labels)
        scores = np.array([label.score for label in labels])

        def mean(drawn: Array) -> float:
            parts = [drawn[sets[drawn] == one] for one in np.unique(sets)]
            return float(np.mean([spearman(scores[part], predictions[part]) for part in parts]))

        return mean

    def strata(self, labels: Array) -> Array:
        """See `Quality.strata`; the number of each pair's set."""
        numbers: Array = np.unique([label.set for label in labels], return_inverse=True)[1]
        return numbers


def spearman(labels: Array, predictions: Array) -> float:
    """Return Spearman's correlation of two (pairs,) arrays, 0 if one is constant."""
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(labels), stats.rankdata(predictions))[0, 1])
