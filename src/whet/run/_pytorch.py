"""A model in PyTorch, for folders without an export; this module alone of the wing imports torch and transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from whet.models.artifact import load_with_tokenizer
from whet.models.inference import exported_outputs, input_names
from whet.models.load import common_max_length
from whet.run.sessions import Session
from whet.run.text import Padding, Row, Text
from whet.utils.precision import FP32

__all__ = ["TorchSession"]

_NO_LIMIT = 100_000
"""Tokenizers without a length of their own give one far beyond it."""


class TorchSession(Session):
    """A model and its tokenizer, as transformers has them; an `Encoder` too."""

    precision = FP32

    def __init__(self, source: str | Path, max_length: int | None, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.model, self._tokenizer = load_with_tokenizer(source)
        self._names = input_names(self.model, self._tokenizer.model_input_names)
        own = self._tokenizer.model_max_length
        self.max_length = common_max_length(max_length or own, self.model)
        self.padding = Padding(
            self._tokenizer.pad_token_id,
            self._tokenizer.pad_token_type_id,
            left=self._tokenizer.padding_side == "left",
        )
        self._lock = Lock()

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """See `Session.run`."""
        with torch.inference_mode():
            outputs = exported_outputs(self.model, {name: torch.from_numpy(inputs[name]) for name in self._names})
        return {name: values.float().numpy() for name, values in outputs.items()}

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """See `Encoder.rows`."""
        limit = {"truncation": True, "max_length": self.max_length} if self.max_length < _NO_LIMIT else {}
        singles = [i for i, text in enumerate(texts) if isinstance(text, str)]
        pairs = [i for i, text in enumerate(texts) if not isinstance(text, str)]
        rows: dict[int, Row] = {}
        for some, arguments in (
            (singles, [[texts[i] for i in singles]]),
            (pairs, [[texts[i][0] for i in pairs], [texts[i][1] for i in pairs]]),
        ):
            if some:
                with self._lock:  # it changes its tokenizer during a call
                    encoded = self._tokenizer(*arguments, verbose=False, **limit)
                ids = encoded["input_ids"]
                types = encoded.get("token_type_ids", [[0] * len(row) for row in ids])
                rows |= {i: Row(*row) for i, row in zip(some, zip(ids, types, strict=True), strict=True)}
        return [rows[i] for i in range(len(texts))]
