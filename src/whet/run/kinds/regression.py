"""Regressors: a score of a text."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from whet.run.kinds._texts import Prediction, TextPredictor, TextsToClassify, pipeline_code
from whet.run.text import Text

__all__ = ["TextRegressor"]

Array = np.ndarray[Any, Any]


class TextRegressor(TextPredictor):
    """A model that gives each text a score."""

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`; without the option, a pipeline squashes a score between 0 and 1."""
        options = ', function_to_apply="none"'
        return pipeline_code("score", folder, pipeline_tag, '"The text to classify."', options)

    def predict(self, texts: Text | Iterable[Text]) -> list[Prediction]:
        """Return a prediction for each text, in order.

        Args:
            texts: a text, a pair of texts as a tuple, or an iterable of either.
        """
        [label] = self.labels
        return [Prediction(label, score, {label: score}) for [score] in self.scores(texts).tolist()]

    def scores(self, texts: Text | Iterable[Text]) -> Array:
        """Return (texts, 1) scores."""
        return self.logits(texts).astype(np.float64)

    def answer(self, request: TextsToClassify) -> list[Prediction]:
        """See `Predictor.answer`."""
        return self.predict(request.texts)
