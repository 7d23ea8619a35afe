"""Language modeling: a decoder predicts each token of a text from those before it."""

from typing import ClassVar

from whet.tasks.kinds._tokens import TokenPrediction
from whet.tasks.kinds.base import Head

__all__ = ["LanguageModeling"]


class LanguageModeling(TokenPrediction):
    """The output at a token is the distribution of the next; padding and context are not answered."""

    pipeline_tag: ClassVar[str] = "text-generation"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    heads: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")
    holds: ClassVar[str] = "a language model"
    not_in_exports: ClassVar[str] = (
        "the export scores texts, without a cache of keys and values; to generate text, use the model with transformers"
    )
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_byte")

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`; the class of a model tells all."""
        return True
