"""Tokens that the user's own text never has leave the vocabulary, and the tokenizer with it.

Their rows of the word embeddings are never read on such text, so that answers stay what they are there; no layer is
needed that plain transformers lacks. A word of other text whose token is gone is read in smaller pieces. Special
tokens and single characters stay, and in BPE what is merged on the way to a token that stays.

Source: Abdaoui, Pradel, Sigel, "Load What You Need: Smaller Versions of Multilingual BERT", SustaiNLP 2020, arXiv
2010.05609.
Differs: by the text of one task instead of one language; the answers on that text are exactly what they were.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Interval
from torch import nn
from transformers import PreTrainedTokenizerBase

from whet.calibration.resources import Resources
from whet.errors import MissingResource
from whet.methods.base import Method, Stage
from whet.models.surgery import keep_words
from whet.models.vocabulary import fewer_tokens, needed_tokens, text_counts
from whet.tasks.data import Text

__all__ = ["Vocabulary"]


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Method):
    """Leave out the tokens that training text does not have."""

    least_count: Annotated[int, Interval(ge=0)] = 1
    """Tokens stay that the whole training text has as often as this; 0 keeps all."""
    keep_first: Annotated[int, Interval(ge=0)] = 0
    """So many of the first tokens stay too, for text that is still to come; most vocabularies are by frequency."""

    stage: ClassVar[Stage] = Stage.VOCABULARY
    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    example: ClassVar[dict[str, Any]] = {"least_count": 1}
    mildest: ClassVar[dict[str, Any]] = {"least_count": 0}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`.

        Raises:
            NothingToCompress: the table of word embeddings is of another kind, or the model predicts words.
            InvalidModel: the tokenizer cannot lose tokens, or the model needs one that would go.
        """
        keep_words(model, self._kept(_given(resources)))
        return model

    def tokenizer(self, resources: Resources) -> PreTrainedTokenizerBase:
        """See `Method.tokenizer`."""
        text = _given(resources)
        return fewer_tokens(text.tokenizer, self._kept(text), text.examples.texts)

    def _kept(self, text: Text) -> list[int]:
        counts = text_counts(text.examples, text.tokenizer)
        used = {*(counts >= self.least_count).nonzero()[:, 0].tolist(), *range(self.keep_first)}
        return needed_tokens(text.tokenizer, used)


def _given(resources: Resources) -> Text:
    if resources.text is None:
        raise MissingResource("training text must be given, but got none; give --task")
    return resources.text
