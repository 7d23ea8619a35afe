"""Classifiers: the likeliest class of a text, and the probabilities of all."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from whet.run.kinds._texts import Prediction, TextPredictor, TextsToClassify, pipeline_code
from whet.run.text import Text

__all__ = ["TextClassifier"]

Array = np.ndarray[Any, Any]


class TextClassifier(TextPredictor):
    """A classifier of texts."""

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`."""
        return pipeline_code("classify", folder, pipeline_tag, '"The text to classify."')

    def predict(self, texts: Text | Iterable[Text]) -> list[Prediction]:
        """Return a prediction for each text, in order.

        Args:
            texts: a text, a pair of texts as a tuple, or an iterable of either.
        """
        predictions = []
        for row in self.scores(texts):
            best = int(row.argmax())
            scores = dict(zip(self.labels, row.tolist(), strict=True))
            predictions.append(Prediction(self.labels[best], float(row[best]), scores))
        return predictions

    def scores(self, texts: Text | Iterable[Text]) -> Array:
        """Return (texts, classes) probabilities."""
        logits = self.logits(texts).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = odds / odds.sum(axis=1, keepdims=True)
        return probabilities

    def answer(self, request: TextsToClassify) -> list[Prediction]:
        """See `Predictor.answer`."""
        return self.predict(request.texts)
