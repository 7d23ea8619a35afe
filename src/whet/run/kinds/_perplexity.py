"""Language models: how well they predict the tokens of a text."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from whet.errors import InvalidParameter
from whet.run.kinds.base import Predictor, checked_texts
from whet.utils.inputs import one_line

__all__ = ["PerplexityOfTexts", "TextPerplexity", "TokenPredictor"]


@dataclass(frozen=True, slots=True)
class TextPerplexity:
    """How well a model predicts a text."""

    perplexity: float
    """e to the mean of −log p over its tokens; the smaller the better."""
    tokens: int
    """How many tokens were predicted."""


@dataclass(frozen=True)
class PerplexityOfTexts:
    """A request to a server."""

    texts: list[str]


class TokenPredictor(Predictor):
    """A language model in PyTorch."""

    call: ClassVar[str] = 'predictor.predict(["A text whose words are predicted."])'
    request: ClassVar[Mapping[str, Any]] = {"texts": ["A text whose words are predicted."]}
    has_labels: ClassVar[bool] = False
    runs_exports: ClassVar[bool] = False
    reading: ClassVar[Literal["causal", "masked"]]
    """How the model reads: each token from those before it, or masked tokens from those around them."""

    def predict(self, texts: str | Iterable[str]) -> list[TextPerplexity]:
        """Return the perplexity of each text, in order, as `whet measure` takes it: in windows, if it is long.

        Args:
            texts: a text, or an iterable of texts.

        Raises:
            InvalidParameter: something is no text, or has too few tokens to predict one.
        """
        from whet.run._pytorch import token_losses

        asked, found = checked_texts(texts, pairs=False), []
        for i, (loss, tokens) in enumerate(token_losses(self._session, asked, self.reading, self._about.batch_size)):
            if not tokens:
                raise InvalidParameter(
                    "a text must have a token that the model can predict, but got "
                    f"texts[{i}]={one_line(repr(asked[i]), 60)}; give a longer one"
                )
            found.append(TextPerplexity(math.exp(loss / tokens), int(tokens)))
        return found

    def answer(self, request: PerplexityOfTexts) -> list[TextPerplexity]:
        """See `Predictor.answer`."""
        return self.predict(request.texts)
