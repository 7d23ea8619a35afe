"""Masked language modeling: an encoder predicts masked tokens of a text from those around them.

Its perplexity is a pseudo-perplexity: the probabilities of its tokens do not multiply to that of a text.
"""

from typing import ClassVar

from whet.tasks.kinds._tokens import TokenPrediction
from whet.tasks.kinds.base import Head

__all__ = ["MaskedLanguageModeling"]


class MaskedLanguageModeling(TokenPrediction):
    """The output at a masked token is the distribution of the token that stood there; no other is answered."""

    pipeline_tag: ClassVar[str] = "fill-mask"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    heads: ClassVar[tuple[str, ...]] = ("ForMaskedLM",)
    holds: ClassVar[str] = "a masked language model"
    metrics: ClassVar[tuple[str, ...]] = ("pseudo_perplexity",)

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`; the class of a model tells all."""
        return True
