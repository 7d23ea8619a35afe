"""Models that answer a text, or a pair of texts, by one row of logits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from whet.run.kinds.base import Predictor, checked_texts
from whet.run.text import Text

__all__ = ["Prediction", "TextPredictor", "TextsToClassify", "pipeline_code"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text."""

    label: str
    """The likeliest class; of a regressor, the name of its output."""
    score: float
    """Probability of that class; of a regressor, the score itself."""
    scores: Mapping[str, float]
    """All classes with their probabilities; of a regressor, its one score."""


@dataclass(frozen=True)
class TextsToClassify:
    """A request to a server: texts, or pairs of texts."""

    texts: list[str | tuple[str, str]]


class TextPredictor(Predictor):
    """One row of logits for each text."""

    def logits(self, texts: Text | Iterable[Text]) -> Array:
        """Return the model's (texts, outputs) float32 logits.

        Args:
            texts: a text, a pair of texts as a tuple, or an iterable of either.

        Raises:
            InvalidParameter: something is neither a text nor a pair of texts.
        """
        asked = checked_texts(texts)
        logits = np.empty((len(asked), len(self._about.labels)), np.float32)
        for first, part in self._chunks(asked):
            for batch, outputs in self._outputs(self._encoder.rows(part)):
                logits[first + batch] = outputs["logits"]
        return logits


def pipeline_code(name: str, folder: str, pipeline_tag: str, text: str, options: str = "") -> list[str]:
    """Return lines of Python that ask a pipeline of transformers.

    Args:
        name: what the pipeline is called in the code.
        folder: of the model, as a literal of Python.
        pipeline_tag: the name of the pipeline in transformers.
        text: what it is asked, as a literal of Python.
        options: more arguments of the pipeline, after a comma.
    """
    return [
        "from transformers import pipeline",
        "",
        f'{name} = pipeline("{pipeline_tag}", model={folder}{options})',
        f"print({name}({text}))",
    ]
