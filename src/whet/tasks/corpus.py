"""Running text as examples: passages, which a language model reads in windows.

A passage is what resampling draws: about 300 words of a running text, or a whole document where the data are documents.
Neighbouring tokens share a subject, so that resampled tokens would give intervals that are too narrow; passages depend
on the text alone, so that models with different tokenizers are compared on the same ones.

Windows end one after another; each counts the tokens since the end of the last, `stride` of them, and reads as much
before them as fits. Every token of a passage counts once. What is read but does not count is not ANSWERED.

Source: Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17, 1989,
for blocks; Salazar, Liang, Nguyen, Kirchhoff, "Masked Language Model Scoring", ACL 2020, for pseudo-perplexity.
Differs: a masked model sees MASKED_SHARE of a window masked at a time, as in its pretraining, instead of one token.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np

from whet.errors import InvalidData, InvalidModel, InvalidParameter
from whet.tasks.data import ANSWERED, TARGETS, Encoded, Examples
from whet.utils.files import json_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["PASSAGE_WORDS", "Document", "Passage", "Passages", "Reading", "documents", "running_text"]

Array = np.ndarray[Any, Any]
Reading = Literal["causal", "masked"]
"""How a model reads: each token from those before it, or masked tokens from those around them."""

PASSAGE_WORDS = 300
"""Words of a passage: a few paragraphs, so that most of what neighbouring tokens share stays within one."""
MASKED_SHARE = 0.15
"""Share of a window's tokens that are masked at a time, as BERT was trained."""
IGNORED = -100
"""The label of tokens that no loss reads, in transformers."""
_WORD = re.compile(r"\S+\s*")


class _Tokens(NamedTuple):
    """The tokens of a text, without special ones."""

    ids: Array
    """(tokens,)."""
    starts: Array
    """(tokens,) the place in the text of the first character of each, rising."""


class Document:
    """A text that passages are cut from. It keeps its tokens, since the windows of all its passages need them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens: WeakKeyDictionary[PreTrainedTokenizerBase, _Tokens] = WeakKeyDictionary()

    def tokens(self, tokenizer: "PreTrainedTokenizerBase") -> _Tokens:
        """Return the tokens of the whole text.

        Raises:
            InvalidModel: the tokenizer does not say where its tokens stand.
        """
        if tokenizer not in self._tokens:
            if not tokenizer.is_fast:
                raise InvalidModel(
                    f"the tokenizer must say where tokens stand in a text, but got {type(tokenizer).__name__}, which "
                    "does not; give one with a tokenizer.json"
                )
            encoded = tokenizer(self.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            columns = (encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]])
            self._tokens[tokenizer] = _Tokens(*(np.asarray(column, dtype=int) for column in columns))
        return self._tokens[tokenizer]


class Passage(NamedTuple):
    """A part of a text."""

    source: Document
    """The text."""
    start: int
    """Its first character."""
    end: int
    """The character after its last."""

    @property
    def text(self) -> str:
        """What the passage says."""
        return self.source.text[self.start : self.end]


@dataclass(frozen=True)
class Passages(Examples):
    """Passages; their labels are their lengths in bytes of UTF-8, by which bits are counted."""

    reading: Reading = "causal"
    """How a model reads them."""
    windows: Literal["overlapping", "adjacent"] = "adjacent"
    """Whether windows read again what stands before the tokens that they count; without that, training is cheaper."""
    stride: int | None = None
    """Tokens that each of overlapping windows counts; half of a window if None."""

    @classmethod
    def of(cls, passages: Sequence[Passage], **settings: Any) -> Self:
        """Return passages as examples; `settings` are fields of this class."""
        return cls(passages, [len(passage.text.encode()) for passage in passages], **settings)

    def plain(self) -> list[tuple[str, ...]]:
        """See `Examples.plain`."""
        return [(passage.text,) for passage in self.texts]

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """See `Examples.cut_share`; windows cut nothing off."""
        return 0.0

    def digest(self) -> str:
        """See `Examples.digest`; what stands before a passage counts too."""
        sources = {passage.source: json_digest(passage.source.text) for passage in self.texts}
        spans = [[sources[passage.source], passage.start, passage.end] for passage in self.texts]
        return json_digest([spans, self.reading, self.windows, self.stride])

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`; one input for each window, of a masked model one for each part that is masked.

        Raises:
            InvalidData: there is nothing to predict.
            InvalidParameter: the stride is larger than a window, or the tokenizer has no mask.
            InvalidModel: the tokenizer does not say where its tokens stand.
        """
        frame = _Frame.of(tokenizer)
        size = max_length - len(frame.before) - (len(frame.after) if self.reading == "masked" else 0)
        stride, read = self._stride(size, max_length), size if self.windows == "overlapping" else None
        rows, owners = [], []
        for i, passage in enumerate(self.texts):
            for window in _windows(passage, passage.source.tokens(tokenizer), stride, size=read):
                made = _masked_rows(window, frame, tokenizer) if self.reading == "masked" else _row(window, frame)
                rows += made
                owners += [i] * len(made)
        if self.texts and not rows:
            raise InvalidData(
                f"the text must have tokens to predict, but {type(tokenizer).__name__} makes none of it; give more "
                "text, or the model's own tokenizer"
            )
        if "token_type_ids" in tokenizer.model_input_names:
            rows = [{**row, "token_type_ids": [0] * len(row["input_ids"])} for row in rows]
        return Encoded(rows, owners, [])

    def _stride(self, size: int, max_length: int) -> int:
        if size < 2:
            raise InvalidParameter(f"a window must hold 2 tokens of text, but got max_length={max_length}; raise it")
        if self.reading == "masked" and self.stride is not None:
            raise InvalidParameter(
                f"a stride must go with a model that reads from left to right, but got stride={self.stride} with a "
                "masked one, which reads each window once; leave it out"
            )
        if self.windows == "adjacent" or self.reading == "masked":
            return size
        stride = size // 2 if self.stride is None else self.stride
        if not 1 <= stride <= size:
            raise InvalidParameter(
                f"1 <= stride <= {size} must hold, the tokens of text in a window, but got stride={stride}; give a "
                f"smaller one, or a larger max_length than {max_length}"
            )
        return stride


def running_text(
    text: str, *, reading: Reading, split: Literal["train", "dev"], stride: int | None = None, source: object
) -> Passages:
    """Return the passages of a running text.

    For training, a passage is read without what stands before it, so that nothing of a held-out passage is seen.

    Args:
        text: the text.
        reading: how the model reads.
        split: what the passages serve.
        stride: see `Passages.stride`.
        source: what the text was read from, for the error message.

    Raises:
        InvalidData: the text is shorter than two passages.
    """
    ends = list(_ends(text))
    if len(ends) < 2:
        raise InvalidData(
            f"a running text must hold two passages of {PASSAGE_WORDS} words, but got {len(text.split())} words in "
            f"{source}; give more text"
        )
    whole = Document(text)
    passages = [Passage(whole, start, end) for start, end in zip([0, *ends], ends, strict=False)]
    if split == "dev":
        return Passages.of(passages, reading=reading, windows="overlapping", stride=stride)
    return documents([passage.text for passage in passages], reading=reading, split=split, stride=stride)


def documents(
    texts: Sequence[str], *, reading: Reading, split: Literal["train", "dev"], stride: int | None = None
) -> Passages:
    """Return texts as one passage each, that nothing stands before; those without words are left out.

    Args:
        texts: the documents.
        reading: how the model reads.
        split: what the passages serve.
        stride: see `Passages.stride`.
    """
    passages = [Passage(Document(text), 0, len(text)) for text in texts if text.strip()]
    windows: Literal["overlapping", "adjacent"] = "overlapping" if split == "dev" else "adjacent"
    return Passages.of(passages, reading=reading, windows=windows, stride=stride)


def _ends(text: str) -> Iterator[int]:
    """Where passages end: at the first end of a line after PASSAGE_WORDS, or at the latest after twice as many words.

    What is left is the end of the last passage, unless it is long enough for one of its own.
    """
    ends: list[int] = []
    words = 0
    for word in _WORD.finditer(text):
        words += 1
        if (words >= PASSAGE_WORDS and "\n" in word[0]) or words == 2 * PASSAGE_WORDS:
            ends.append(word.end())
            words = 0
    if words and (words >= PASSAGE_WORDS // 2 or not ends):
        ends.append(len(text))
    elif ends:
        ends[-1] = len(text)
    return iter(ends)


class _Window(NamedTuple):
    """The tokens of a window."""

    ids: Array
    """(tokens,)."""
    counted: int
    """The first that counts."""


class _Frame(NamedTuple):
    """The special tokens that a tokenizer puts around a text."""

    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "_Frame":
        encoded = tokenizer("a", return_special_tokens_mask=True)
        ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
        inner = [i for i, mark in enumerate(special) if not mark]
        return cls(ids[: inner[0]], ids[inner[-1] + 1 :]) if inner else cls(ids, [])


def _windows(passage: Passage, tokens: _Tokens, stride: int, *, size: int | None) -> Iterator[_Window]:
    """The windows of a passage, whose counted tokens follow one another.

    Args:
        passage: the passage.
        tokens: of its whole text.
        stride: tokens that a window counts.
        size: tokens that a window reads; None reads those alone that it counts.
    """
    first, last = np.searchsorted(tokens.starts, [passage.start, passage.end])
    for start in range(first, last, stride):
        end = min(start + stride, last)
        begin = start if size is None else max(0, end - size)
        yield _Window(tokens.ids[begin:end], start - begin)


def _row(window: _Window, frame: _Frame) -> list[dict[str, Any]]:
    """The input of a causal model; none if there is nothing to predict, since the first token of all has no context.

    The output at a token predicts the next, so that it is answered if the next one counts.
    """
    ids = [*frame.before, *window.ids.tolist()]
    first = max(1, len(frame.before) + window.counted)
    counts = [0] * first + [1] * (len(ids) - first)
    labels = [token if count else IGNORED for token, count in zip(ids, counts, strict=True)]
    row = _input(ids, labels, answered=[*counts[1:], 0], targets=[*ids[1:], 0])
    return [row] if any(counts) else []


def _masked_rows(window: _Window, frame: _Frame, tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, Any]]:
    """The inputs of a masked model: in each, others of the tokens that count are masked, and each of them is once.

    The parts depend on the tokens alone, not on the other windows.
    """
    mask: Any = tokenizer.mask_token_id
    if mask is None:
        raise InvalidParameter(
            f"a masked language model must have a mask token, but its tokenizer, {type(tokenizer).__name__}, has none; "
            "give a masked model, or --kind language_modeling"
        )
    count, counted = len(window.ids), np.arange(window.counted, len(window.ids))
    order = np.random.default_rng(zlib.crc32(window.ids.tobytes())).permutation(counted)
    rows = []
    for part in np.array_split(order, min(len(order), round(1 / MASKED_SHARE))):
        masked = np.isin(np.arange(count), part)
        ids = [*frame.before, *np.where(masked, mask, window.ids).tolist(), *frame.after]
        answered = [0] * len(frame.before) + masked.astype(int).tolist() + [0] * len(frame.after)
        targets = [0] * len(frame.before) + window.ids.tolist() + [0] * len(frame.after)
        labels = [token if count else IGNORED for token, count in zip(targets, answered, strict=True)]
        rows.append(_input(ids, labels, answered=answered, targets=targets))
    return rows


def _input(ids: list[int], labels: list[int], *, answered: list[int], targets: list[int]) -> dict[str, Any]:
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": labels,
        ANSWERED: answered,
        TARGETS: targets,
    }
