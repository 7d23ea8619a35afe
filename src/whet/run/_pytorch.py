"""A model in PyTorch, for folders without an export; this module alone of the wing imports torch and transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whet.errors import InvalidModel
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import exported_outputs, input_names, kind_of_model, predict
from whet.models.load import common_max_length
from whet.run.kinds.base import About
from whet.run.sessions import Session
from whet.run.text import LocatedRow, Padding, Row, Text, WindowRow
from whet.tasks.corpus import Document, Passage, Passages, Reading
from whet.tasks.encoding import encode
from whet.tasks.questions import Questions
from whet.tasks.sentences import SentenceModules
from whet.utils.precision import FP32, PYTORCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TorchSession", "token_losses"]

_NO_LIMIT = 100_000
"""Tokenizers without a length of their own give one far beyond it."""
_USUAL_WINDOW = 512
"""Tokens of a window, where nothing limits it."""


class TorchSession(Session):
    """A model and its tokenizer, as transformers has them; an `Encoder` too."""

    precision = FP32

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_length: int | None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.kind = kind_of_model(self.model).name()
        """The name of the kind of its answers."""
        self._names = input_names(self.model, self.tokenizer.model_input_names)
        self._sentences = SentenceModules.of(self.model.config)
        own = None if self._sentences is None else self._sentences.max_length
        longest = min(filter(None, (max_length or self.tokenizer.model_max_length, own)))
        self.max_length = common_max_length(longest, self.model)
        self.padding = Padding(
            self.tokenizer.pad_token_id,
            self.tokenizer.pad_token_type_id,
            left=self.tokenizer.padding_side == "left",
        )
        self._lock = Lock()

    @classmethod
    def opened(
        cls, source: str | Path, kind: str | None, max_length: int | None, threads: int | None
    ) -> "TorchSession":
        """Return the model of a folder or hub name; see `whet.load`."""
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(*load_with_tokenizer(source, kind=kind), max_length)

    def about(self, source: str, batch_size: int) -> About:
        """Return what a predictor knows of the model."""
        names = self.model.config.id2label
        return About(
            source=source,
            target=PYTORCH,
            labels=tuple(str(names[i]) for i in sorted(names)),
            max_length=self.max_length,
            batch_size=batch_size,
            config=self.model.config.to_dict(),
            sentences=self._sentences,
        )

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """See `Session.run`."""
        with torch.inference_mode():
            outputs = exported_outputs(self.model, {name: torch.from_numpy(inputs[name]) for name in self._names})
        return {name: values.float().numpy() for name, values in outputs.items()}

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """See `Encoder.rows`."""
        singles = [i for i, text in enumerate(texts) if isinstance(text, str)]
        pairs = [i for i, text in enumerate(texts) if not isinstance(text, str)]
        rows: dict[int, Row] = {}
        for some, arguments in (
            (singles, [[texts[i] for i in singles]]),
            (pairs, [[texts[i][0] for i in pairs], [texts[i][1] for i in pairs]]),
        ):
            if some:
                rows |= dict(zip(some, _rows(self._encoded(*arguments)), strict=True))
        return [rows[i] for i in range(len(texts))]

    def located(self, texts: Sequence[str]) -> list[LocatedRow]:
        """See `Encoder.located`."""
        if not self.tokenizer.is_fast:
            raise InvalidModel(
                "the tokenizer must know where its tokens lie in the text, as those with a tokenizer.json do, but got "
                f"{type(self.tokenizer).__name__}; save the model with such a tokenizer"
            )
        if not texts:
            return []
        encoded = self._encoded(list(texts), return_offsets_mapping=True)
        return list(map(LocatedRow, _rows(encoded), encoded["offset_mapping"]))

    def windows(self, question: str, context: str) -> list[WindowRow]:
        """See `Encoder.windows`."""
        length = self.max_length if self.max_length < _NO_LIMIT else _USUAL_WINDOW
        with self._lock:
            encoded = Questions([question], [()], [context]).encode(self.tokenizer, max_length=length)
        return list(map(WindowRow, _rows(_columns(encoded.rows)), encoded.notes))

    def _encoded(self, *texts: list[str], **options: Any) -> Any:
        limit = {"truncation": True, "max_length": self.max_length} if self.max_length < _NO_LIMIT else {}
        with self._lock:  # it changes its tokenizer during a call
            return self.tokenizer(*texts, verbose=False, **limit, **options)


def _rows(encoded: Mapping[str, Any]) -> list[Row]:
    ids = encoded["input_ids"]
    types = encoded.get("token_type_ids", [[0] * len(row) for row in ids])
    return [Row(*row) for row in zip(ids, types, strict=True)]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def token_losses(
    session: Session, texts: Sequence[str], reading: Reading, batch_size: int
) -> list[tuple[float, float]]:
    """Return the summed −log p of the tokens of each text, in nats, and their number.

    Args:
        session: with a language model.
        texts: read in windows, where they are long.
        reading: how the model reads.
        batch_size: windows that run together.
    """
    assert isinstance(session, TorchSession)
    if not texts:
        return []
    passages = [Passage(Document(text), 0, len(text)) for text in texts]
    examples = Passages.of(passages, reading=reading, windows="overlapping")
    length = session.max_length if session.max_length < _NO_LIMIT else _USUAL_WINDOW
    batches = encode(examples, session.tokenizer, max_length=length, batch_size=batch_size)
    if not len(batches):  # there is no token to predict
        return [(0.0, 0.0)] * len(texts)
    answers = predict(session.model, batches)
    found = answers.kind.predictions(answers, batches)
    return [(float(loss), float(tokens)) for loss, tokens in found]
