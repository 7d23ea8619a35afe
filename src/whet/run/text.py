"""From texts to token ids and padded batches, as transformers makes them, by the `tokenizers` library alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from whet.errors import InvalidArtifact, InvalidData, InvalidParameter
from whet.run.folder import ModelFolder
from whet.tasks.spans import Window, overlap, question_room, window_of
from whet.utils.inputs import one_line

__all__ = ["Encoder", "LocatedRow", "Padding", "Row", "Text", "TokenEncoder", "WindowRow", "padded_batch"]

Text = str | tuple[str, str]
"""A text, or a pair of texts."""

TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_PADS_LEFT = tuple(f"{name}Tokenizer" for name in ("CodeLlama", "Cohere", "Gemma", "Llama", "Siglip2", "XLNet"))
"""Tokenizers of transformers that pad on the left, of which their files say nothing."""


class Row(NamedTuple):
    """One text in tokens."""

    input_ids: Sequence[int]
    token_type_ids: Sequence[int]
    """0, or 1 for the second text of a pair, as the model's tokenizer counts."""


class LocatedRow(NamedTuple):
    """One text in tokens, and where they lie in it."""

    row: Row
    offsets: Sequence[tuple[int, int]]
    """Where each token starts and ends, in characters; (0, 0) for special ones."""


class WindowRow(NamedTuple):
    """A part of a context, with the question before it."""

    row: Row
    window: Window
    """Where the part lies."""


class Padding(NamedTuple):
    """What fills the rows of a batch up to the longest."""

    token: int
    """Id of the padding token."""
    type: int = 0
    """Its token type."""
    left: bool = False
    """Whether it stands before the text."""


class Encoder(Protocol):
    """Makes token ids of texts; safe to call from several threads."""

    padding: Padding

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """Return the tokens of each text, with special tokens, cut to the largest length."""

    def located(self, texts: Sequence[str]) -> list[LocatedRow]:
        """Return the tokens of each text as `rows` does, and where they lie in it."""

    def windows(self, question: str, context: str) -> list[WindowRow]:
        """Return the windows in which a context is read after a question; for encoders that were made for it.

        Raises:
            InvalidData: the question leaves no room for its context.
        """


class TokenEncoder:
    """The tokenizer in `tokenizer.json`."""

    def __init__(self, folder: ModelFolder, max_length: int | None, *, in_windows: bool = False) -> None:
        """Open a tokenizer.

        Args:
            folder: where it lies.
            max_length: longest input in tokens; None if nothing limits it.
            in_windows: whether inputs are windows of a long text, and not cut.
        """
        from tokenizers import Tokenizer

        if not folder.lists(TOKENIZER):
            raise InvalidArtifact(
                f"a model must have a {TOKENIZER} to run without transformers, but {folder.path} has none; "
                "run it with runtime='pytorch'"
            )
        path = folder.file(TOKENIZER)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise InvalidArtifact(f"{path} must be a tokenizer, but {one_line(error, 200)}; copy it again") from error
        config = folder.read_json(TOKENIZER_CONFIG) if folder.lists(TOKENIZER_CONFIG) else {}
        special = folder.read_json(SPECIAL_TOKENS) if folder.lists(SPECIAL_TOKENS) else {}
        self.padding = self._padding({**special, **config}, path)
        self._tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
        # what is set here holds for all calls: a change while another thread encodes would be an error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._max_length, self._whole = max_length, self._tokenizer
        if max_length is not None:
            _require_room(self._tokenizer, max_length)
            direction = str(config.get("truncation_side", "right"))
            how: dict[str, Any] = {"strategy": "longest_first"}
            if in_windows:
                self._whole = Tokenizer.from_str(self._tokenizer.to_str())  # without truncation
                how = {"strategy": "only_second", "stride": overlap(max_length)}
            self._tokenizer.enable_truncation(max_length, direction=direction, **how)

    def _padding(self, config: Mapping[str, Any], path: Path) -> Padding:
        # without a padding token, whet pads with the end token
        tokens = [_content(config.get(name)) for name in ("pad_token", "eos_token")]
        token = next((self._tokenizer.token_to_id(name) for name in tokens if name), None)
        if token is None:
            raise InvalidArtifact(
                f"a tokenizer must have a padding or an end token, but {path.parent} names {tokens[0]!r}, which "
                f"{path.name} does not know; copy it again"
            )
        kind = str(config.get("tokenizer_class")).removesuffix("Fast")
        side = config.get("padding_side", "left" if kind in _PADS_LEFT else "right")
        kind_of_padding = config.get("pad_token_type_id", 3 if kind == "XLNetTokenizer" else 0)
        return Padding(token, int(kind_of_padding), left=side == "left")

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """See `Encoder.rows`."""
        return [Row(one.ids, one.type_ids) for one in self._tokenizer.encode_batch(list(texts))]

    def located(self, texts: Sequence[str]) -> list[LocatedRow]:
        """See `Encoder.located`."""
        encoded = self._tokenizer.encode_batch(list(texts))
        return [LocatedRow(Row(one.ids, one.type_ids), one.offsets) for one in encoded]

    def windows(self, question: str, context: str) -> list[WindowRow]:
        """See `Encoder.windows`."""
        if self._max_length is not None:
            special = self._whole.num_special_tokens_to_add(is_pair=True)
            limit = question_room(self._max_length, special)
            length = len(self._whole.encode(question, add_special_tokens=False).ids)
            if length > limit:
                raise InvalidData(
                    f"a question must have {max(0, limit)} tokens at most to leave room for its context in windows of "
                    f"{self._max_length}, but got {length}; give a larger max_length, or shorten it"
                )
        first = self._tokenizer.encode(question, context)
        return [
            WindowRow(Row(one.ids, one.type_ids), window_of(one.sequence_ids, one.offsets))
            for one in (first, *first.overflowing)
        ]


def padded_batch(rows: Sequence[Row], padding: Padding) -> dict[str, np.ndarray[Any, Any]]:
    """Return rows as the inputs of a model, each (rows, longest) int64; the longest has one token at least."""
    shape = len(rows), max(1, *(len(row.input_ids) for row in rows))
    ids, types, mask = np.full(shape, padding.token), np.full(shape, padding.type), np.zeros(shape, np.int64)
    for i, row in enumerate(rows):
        place = slice(shape[1] - len(row.input_ids), None) if padding.left else slice(len(row.input_ids))
        ids[i, place], types[i, place], mask[i, place] = row.input_ids, row.token_type_ids, 1
    return {"input_ids": ids.astype(np.int64), "token_type_ids": types.astype(np.int64), "attention_mask": mask}


def _require_room(tokenizer: Any, max_length: int) -> None:
    """Refuse a length that special tokens alone fill."""
    special = tokenizer.num_special_tokens_to_add(is_pair=True)
    if max_length <= special:
        raise InvalidParameter(
            f"max_length must leave room for text, but got max_length={max_length}, and special tokens alone are "
            f"{special}; give more"
        )


def _content(token: Any) -> str | None:
    """The text of a special token, which files give as it is or in an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
