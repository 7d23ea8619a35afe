"""Masked language models: the pseudo-perplexity of a text, each token from those around it."""

from typing import ClassVar, Literal

from whet.run.kinds._perplexity import TokenPredictor

__all__ = ["MaskedLanguageModel"]


class MaskedLanguageModel(TokenPredictor):
    """A masked language model; its perplexities are pseudo-perplexities."""

    reading: ClassVar[Literal["causal", "masked"]] = "masked"
