"""Multi-label classifiers: all labels whose probability is above .5."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from whet.run.kinds._texts import TextPredictor, TextsToClassify, pipeline_code
from whet.run.text import Text

__all__ = ["MultiLabelClassifier", "MultiLabelPrediction"]

Array = np.ndarray[Any, Any]

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class MultiLabelPrediction:
    """What a multi-label classifier says of one text."""

    labels: tuple[str, ...]
    """The labels whose probability is above .5, likeliest first; maybe none."""
    scores: Mapping[str, float]
    """All labels with their probabilities."""


class MultiLabelClassifier(TextPredictor):
    """A classifier that gives a text any number of labels."""

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`."""
        return pipeline_code("classify", folder, pipeline_tag, '"The text to classify."', ", top_k=None")

    def predict(self, texts: Text | Iterable[Text]) -> list[MultiLabelPrediction]:
        """Return a prediction for each text, in order.

        Args:
            texts: a text, a pair of texts as a tuple, or an iterable of either.
        """
        predictions = []
        for row in self.scores(texts):
            chosen = tuple(self.labels[i] for i in np.argsort(-row, kind="stable") if row[i] > THRESHOLD)
            predictions.append(MultiLabelPrediction(chosen, dict(zip(self.labels, row.tolist(), strict=True))))
        return predictions

    def scores(self, texts: Text | Iterable[Text]) -> Array:
        """Return (texts, labels) probabilities."""
        logits = self.logits(texts).astype(np.float64)
        probabilities: Array = np.exp(-np.logaddexp(0, -logits))
        return probabilities

    def answer(self, request: TextsToClassify) -> list[MultiLabelPrediction]:
        """See `Predictor.answer`."""
        return self.predict(request.texts)
