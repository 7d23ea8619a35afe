"""Taggers: the entities of a sentence."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from whet.errors import InvalidParameter
from whet.run.entities import Entity, entities_in
from whet.run.kinds._texts import pipeline_code
from whet.run.kinds.base import Predictor, as_list, is_text
from whet.tasks.tags import OUTSIDE, first_pieces, joined_words, word_bounds
from whet.utils.inputs import one_line

__all__ = ["SentencesToTag", "Tagger"]

Array = np.ndarray[Any, Any]
Sentence = str | Sequence[str]
"""A sentence, or its words."""

_SENTENCE = "Ada Lovelace wrote to Charles Babbage from London."


@dataclass(frozen=True)
class SentencesToTag:
    """A request to a server: sentences, each a text or a list of words."""

    texts: list[str | list[str]]


class _Words(NamedTuple):
    """A sentence with the places of its words."""

    text: str
    bounds: list[tuple[int, int]]


class Tagger(Predictor):
    """A model that tags each word of a sentence, such as for the names in it."""

    call: ClassVar[str] = f'predictor.predict(["{_SENTENCE}"])'
    request: ClassVar[Mapping[str, Any]] = {"texts": [_SENTENCE]}

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`."""
        return pipeline_code("tag", folder, pipeline_tag, f'"{_SENTENCE}"', ', aggregation_strategy="first"')

    def predict(self, sentences: Sentence | Iterable[Sentence]) -> list[list[Entity]]:
        """Return the entities of each sentence, in order.

        Words beyond the longest input are part of no entity.

        Args:
            sentences: a sentence, or its words as a tuple, or an iterable of sentences, each a text or a sequence of
                words. Places in a sentence of words count a space between any two.
        """
        found: list[list[Entity]] = []
        for _, part in self._chunks([_words(i, one) for i, one in enumerate(as_list(sentences, name="sentences"))]):
            located = self._encoder.located([words.text for words in part])
            entities: dict[int, list[Entity]] = {}
            for i, outputs in self._token_outputs([one.row for one in located]):
                entities[i] = self._entities(part[i], located[i].offsets, outputs["logits"])
            found += [entities[i] for i in range(len(part))]
        return found

    def answer(self, request: SentencesToTag) -> list[list[Entity]]:
        """See `Predictor.answer`."""
        return self.predict(request.texts)

    def _entities(self, words: _Words, offsets: Sequence[tuple[int, int]], logits: Array) -> list[Entity]:
        """Return the entities of a sentence from the (tokens, tags) logits; the first token of a word answers."""
        tags, scores = [OUTSIDE] * len(words.bounds), [1.0] * len(words.bounds)
        for token, word in first_pieces(offsets, words.bounds, words.text):
            row = logits[token].astype(np.float64)
            best = int(row.argmax())
            tags[word], scores[word] = self.labels[best], float(1 / np.exp(row - row[best]).sum())
        return entities_in(words.text, words.bounds, tags, scores)


def _words(index: int, sentence: Any) -> _Words:
    """Return a sentence with its words.

    Raises:
        InvalidParameter: it is neither a text nor a sequence of words.
    """
    if is_text(sentence):
        return _Words(sentence, word_bounds(sentence))
    if isinstance(sentence, list | tuple) and all(map(is_text, sentence)):
        return _Words(*joined_words(sentence))
    raise InvalidParameter(
        f"sentences must be texts, or lists of words, but got sentences[{index}]={one_line(repr(sentence), 60)}; "
        "correct it"
    )
