"""Metrics of language models: how well they predict the tokens of a text.

With the loss ℓ of a text in nats, summed over its N tokens and B bytes: perplexity = exp(ℓ / N), and bits per byte =
ℓ / (B ln 2). A model of another tokenizer has other tokens, so that only bits per byte compare the two. For a masked
model ℓ is the loss of masked tokens; the probabilities of these do not multiply to that of a text.

They are compared by their factor, since a difference of 1 means little at 200 and much at 3. Resampling draws passages.

Source: Jelinek, Mercer, Bahl, Baker, "Perplexity, a measure of the difficulty of speech recognition tasks", Journal of
the Acoustical Society of America 62, 1977; Salazar, Liang, Nguyen, Kirchhoff, "Masked Language Model Scoring", ACL
2020, for pseudo-perplexity.
"""

import math
from typing import Any, ClassVar

import numpy as np

from whet.evaluation.measurement import Better
from whet.evaluation.metrics.base import SummedQuality

__all__ = ["BitsPerByte", "Perplexity", "PseudoPerplexity"]

Array = np.ndarray[Any, Any]
MOST_NATS = 709.0
"""exp of more is infinite."""


class Perplexity(SummedQuality):
    """exp of the mean loss of a token: among how many equally likely tokens the model would be as unsure."""

    name: ClassVar[str] = "perplexity"
    better: ClassVar[Better] = "lower"

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`; the loss of each example and its tokens, as language models predict them."""
        return predictions

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`; at most what a number can hold."""
        return math.exp(min(float(totals[0] / totals[1]), MOST_NATS))


class PseudoPerplexity(Perplexity):
    """The perplexity of a masked model: exp of the mean loss of a masked token."""

    name: ClassVar[str] = "pseudo_perplexity"


class BitsPerByte(SummedQuality):
    """The loss of a text in bits, over its bytes of UTF-8; what a perfect coder would need to store it."""

    name: ClassVar[str] = "bits_per_byte"
    better: ClassVar[Better] = "lower"

    def counts(self, labels: Array, predictions: Array) -> Array:
        """See `SummedQuality.counts`; the loss of each example and its bytes, which are the labels."""
        return np.stack([predictions[:, 0], labels], 1)

    def of(self, totals: Array) -> float:
        """See `SummedQuality.of`."""
        return float(totals[0] / totals[1] / math.log(2))
