"""Questions with the contexts that hold their answers, and the windows in which models read them.

A context that is longer than a model's input is read in several windows, which overlap. The answers of a question are
pieces of its context; a question without any cannot be answered from its context.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whet.errors import InvalidData, InvalidModel
from whet.tasks.data import ANSWERED, Encoded, Examples
from whet.tasks.spans import LONGEST_ANSWER, Window, overlap, question_room, token_span, window_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AcceptedAnswers", "Questions"]

AcceptedAnswers = tuple[tuple[str, int], ...]
"""The answers that count as right, each with its start in the context, in characters; none if there is no answer."""
AT_ONCE = 1000
"""Questions that are tokenized at once: what the tokenizer keeps of each is many times as large as its tokens."""
_NOT_INPUTS = ("offset_mapping", "overflow_to_sample_mapping")
"""What tokenizers say of inputs, which models do not read."""


@dataclass(frozen=True)
class Questions(Examples):
    """Questions as `texts`, their contexts as `pairs`, and as `labels` the answers that count as right.

    A question is one example, and one input or several: a window for each part of its context.
    """

    longest_answer: int = LONGEST_ANSWER
    """Tokens of the longest answer that is given."""

    def encode(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Encoded:
        """See `Examples.encode`; a note is the `Window` of an input.

        In training, the first answer that counts as right is learned; a window without it learns the first token.

        Raises:
            InvalidModel: the tokenizer does not know where its tokens lie in the text.
            InvalidData: a question leaves too little room for its context.
        """
        _require_offsets(tokenizer)
        self._require_room(tokenizer, max_length)
        whole = Encoded([], [], [])
        for start in range(0, len(self), AT_ONCE):
            some = self._encoded(tokenizer, start, max_length)
            whole.rows.extend(some.rows)
            whole.owners.extend(some.owners)
            whole.notes.extend(some.notes)
        return whole

    def _encoded(self, tokenizer: "PreTrainedTokenizerBase", first: int, max_length: int) -> Encoded:
        """The inputs of AT_ONCE questions from the one with an index."""
        some = slice(first, first + AT_ONCE)
        encoded = tokenizer(
            list(self.texts[some]),
            list((self.pairs or ())[some]),
            truncation="only_second",
            max_length=max_length,
            stride=overlap(max_length),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owners = [first + owner for owner in encoded["overflow_to_sample_mapping"]]
        rows, windows = [], []
        for i, owner in enumerate(owners):
            sequence_ids = encoded.sequence_ids(i)
            window = window_of(sequence_ids, encoded["offset_mapping"][i])
            row = {key: values[i] for key, values in encoded.items() if key not in _NOT_INPUTS}
            rows.append({**row, **_targets(window, self.labels[owner], len(sequence_ids))})
            windows.append(window)
        return Encoded(rows, owners, windows)

    def cut_share(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> float:
        """See `Examples.cut_share`; windows hold all of a context."""
        return 0.0

    def groups(self, size: int) -> list[list[int]]:
        """See `Examples.groups`; all questions about one context."""
        of_context: dict[str, list[int]] = {}
        for i, context in enumerate(self.pairs or ()):
            of_context.setdefault(context, []).append(i)
        return list(of_context.values())

    def _require_room(self, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        """Refuse questions after which a window would show nothing that its neighbour does not."""
        limit = question_room(max_length, tokenizer.num_special_tokens_to_add(pair=True))
        ids = tokenizer(list(self.texts), add_special_tokens=False, verbose=False)["input_ids"] if self.texts else []
        lengths = [len(tokens) for tokens in ids]
        long = sum(length > limit for length in lengths)
        if long:
            raise InvalidData(
                f"each question must have {max(0, limit)} tokens at most to leave room for its context in windows of "
                f"{max_length}, but {long:,} of {len(lengths):,} have up to {max(lengths)}; give a larger max_length, "
                "or shorten them"
            )


def _targets(window: Window, answers: AcceptedAnswers, length: int) -> dict[str, Any]:
    """What a window adds to an input: the tokens whose outputs are read, and the span to learn."""
    last = window.first + len(window.offsets)
    answered = [int(i == 0 or window.first <= i < last) for i in range(length)]
    start, end = 0, 0
    if answers:
        text, begin = answers[0]
        start, end = token_span(window, begin, begin + len(text))
    return {ANSWERED: answered, "start_positions": start, "end_positions": end}


def _require_offsets(tokenizer: "PreTrainedTokenizerBase") -> None:
    if not tokenizer.is_fast:
        raise InvalidModel(
            "the tokenizer of a question answerer must know where its tokens lie in the text, as those with a "
            f"tokenizer.json do, but got {type(tokenizer).__name__}; save the model with such a tokenizer"
        )
