"""Language models: the perplexity of a text, each token from those before it."""

from typing import ClassVar, Literal

from whet.run.kinds._perplexity import TokenPredictor
from whet.run.kinds._texts import pipeline_code

__all__ = ["LanguageModel"]


class LanguageModel(TokenPredictor):
    """A language model that predicts the next token; `model.generate` of its `model` writes on."""

    reading: ClassVar[Literal["causal", "masked"]] = "causal"

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`."""
        return pipeline_code("generate", folder, pipeline_tag, '"Once upon a time"')
