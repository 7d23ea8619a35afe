"""Sentences of words with a tag for each word, and how they become inputs of a tagger.

The words are joined by spaces, and each is answered at its first token. Joining keeps what tokenizers know of spaces,
so that a tagger reads a sentence of words as it reads a running text. Words beyond the largest length, and words of
which a tokenizer leaves nothing, have no answer.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whet.errors import InvalidModel
from whet.tasks.data import ANSWERED, Encoded, Examples
from whet.tasks.tags import first_pieces, joined_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["NOT_ANSWERED", "TaggedWords"]

NOT_ANSWERED = -1
"""What stands for the tag of a word without an answer; metrics read it as O."""
COUNTED = 20_000
"""Sentences among which words without an answer are counted."""
_IGNORED = -100
"""The label that transformers' losses leave out."""


@dataclass(frozen=True)
class TaggedWords(Examples):
    """Sentences of words: `texts` holds tuples of words, `labels` tuples of tag indices, or None if none are read."""

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`; the notes are the words of which each input holds the first token.

        Raises:
            InvalidModel: the tokenizer does not know where its tokens stand in the text.
        """
        sentences = [joined_words(words) for words in self.texts]
        encoded = _with_offsets([text for text, _ in sentences], tokenizer, max_length)
        offsets = encoded.pop("offset_mapping", [])
        rows: list[dict[str, Any]] = []
        notes: list[list[int]] = []
        for i, (text, bounds) in enumerate(sentences):
            tags = self.labels[i]
            row: dict[str, Any] = {key: values[i] for key, values in encoded.items()}
            row["labels"], row[ANSWERED] = [_IGNORED] * len(offsets[i]), [0] * len(offsets[i])
            notes.append([])
            for token, word in first_pieces(offsets[i], bounds, text):
                row[ANSWERED][token] = 1
                row["labels"][token] = _IGNORED if tags is None else tags[word]
                notes[i].append(word)
            rows.append(row)
        return Encoded(rows, list(range(len(rows))), notes)

    def cut_note(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> str:
        """See `Examples.cut_note`; words without an answer are counted, by a sample if there are many sentences."""
        some = self.sample(COUNTED, seed=0) if len(self) > COUNTED else self
        encoded = some.encode(tokenizer, max_length=max_length)
        cut = dropped = 0
        for words, row, answered in zip(some.texts, encoded.rows, encoded.notes, strict=True):
            behind = len(words) - 1 - max(answered, default=-1) if len(row["input_ids"]) >= max_length else 0
            cut, dropped = cut + behind, dropped + len(words) - len(answered) - behind
        beyond = f"beyond {max_length} tokens (--max-length sets another limit, as far as the model can read more)"
        where = {f"{cut:,} {beyond}": cut, f"{dropped:,} of which the tokenizer leaves nothing": dropped}
        if cut + dropped == 0:
            return ""
        return (
            f"{cut + dropped:,} of {sum(map(len, some.texts)):,} words have no answer and count as O: "
            f"{', '.join(said for said, count in where.items() if count)}"
        )

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """See `Examples.cut_share`."""
        ids = tokenizer([text for (text,) in self.plain()], verbose=False)["input_ids"]
        return sum(len(tokens) > max_length for tokens in ids) / len(self)

    def plain(self) -> list[tuple[str, ...]]:
        """See `Examples.plain`; the words with spaces between them."""
        return [(joined_words(words)[0],) for words in self.texts]


def _with_offsets(texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> dict[str, Any]:
    if not tokenizer.is_fast:
        raise InvalidModel(
            "the tokenizer of a tagger must know where its tokens stand in the text, as those with a tokenizer.json "
            f"do, but got {type(tokenizer).__name__}; convert it"
        )
    if not texts:
        return {}
    return dict(tokenizer(texts, truncation=True, max_length=max_length, return_offsets_mapping=True))
