"""Smaller vocabulary: tokens that the training text lacks are removed from the embeddings and the tokenizer.

The rows of removed tokens are never read on that text, so that predictions on it stay the same; plain transformers can
run the smaller model. In other text, a word whose token was removed is split into smaller pieces. Special tokens and
single characters stay; so do, in BPE, the intermediate merges of every token that stays.

Source: Abdaoui, Pradel, Sigel, "Load What You Need: Smaller Versions of Multilingual BERT", SustaiNLP 2020, arXiv
2010.05609.
Differs: the text of one task decides instead of one language; predictions on that text are exactly the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources
from whet.errors import MissingResource
from whet.methods.base import Method, Stage
from whet.models.surgery import keep_words
from whet.models.vocabulary import corpus_token_counts, required_tokens, shrink_tokenizer
from whet.tasks.data import TrainingText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Vocabulary"]


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Method):
    """Remove the tokens that do not occur in the training text."""

    least_count: Annotated[int, Interval(ge=0, le=1_000_000_000)] = 1
    """Smallest number of occurrences in the training text with which a token stays, e.g. 1; 0 keeps all tokens."""
    keep_first: Annotated[int, Interval(ge=0, le=1_000_000_000)] = 0
    """Number of tokens at the start of the vocabulary that always stay, for future text, e.g. 5000; most vocabularies
    begin with the most frequent tokens."""

    stage: ClassVar[Stage] = Stage.VOCABULARY
    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    example: ClassVar[dict[str, Any]] = {"least_count": 1}
    mildest: ClassVar[dict[str, Any]] = {"least_count": 0}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            MissingResource: there is no training text.
            NothingToCompress: the word embeddings are not an ordinary table, or the model predicts words.
            InvalidModel: the tokenizer cannot lose tokens, or the model needs a token that would be removed.
        """
        keep_words(model, self._kept_tokens(_training_text(resources)))
        return model

    def tokenizer(self, resources: Resources) -> "PreTrainedTokenizerBase":
        """See `Method.tokenizer`."""
        text = _training_text(resources)
        texts = [texts[0] for texts in text.examples.plain()]
        return shrink_tokenizer(text.tokenizer, self._kept_tokens(text), texts)

    def _kept_tokens(self, text: TrainingText) -> list[int]:
        counts = corpus_token_counts(text.examples, text.tokenizer)
        used = {*(counts >= self.least_count).nonzero()[:, 0].tolist(), *range(self.keep_first)}
        return required_tokens(text.tokenizer, used)


def _training_text(resources: Resources) -> TrainingText:
    if resources.text is None:
        raise MissingResource("training text must be given, but got none; give --task")
    return resources.text
