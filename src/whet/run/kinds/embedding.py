"""Sentence embedders: a vector for each text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np

from whet.errors import InvalidParameter
from whet.numerics.vectors import VectorForm
from whet.run.kinds.base import Predictor, checked_texts
from whet.utils.inputs import one_line
from whet.utils.precision import VectorType

__all__ = ["Embedder", "TextsToEmbed"]

Array = np.ndarray[Any, Any]
_DOCUMENTS = ("document", "passage", "corpus")
"""What folders call the prompt of documents, in the order in which sentence-transformers looks for it."""
_USUAL = {"query": ("query",), "document": _DOCUMENTS}
"""Prompts that may always be asked for; without its own, a model takes its default."""


@dataclass(frozen=True)
class TextsToEmbed:
    """A request to a server."""

    texts: list[str]
    prompt: str | None = None
    """Name of the prompt, such as query."""
    dimensions: int | None = None
    """How many leading dimensions are kept; all if None."""
    vectors: VectorType = "float32"


class Embedder(Predictor):
    """A sentence embedder; texts that mean alike have vectors of a large cosine."""

    call: ClassVar[str] = 'predictor.predict(["The text to embed.", "Another text."])'
    request: ClassVar[Mapping[str, Any]] = {"texts": ["The text to embed."]}
    library: ClassVar[str] = "sentence-transformers"
    has_labels: ClassVar[bool] = False

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """See `Predictor.in_pytorch`."""
        return [
            "from sentence_transformers import SentenceTransformer",
            "",
            f"model = SentenceTransformer({folder})",
            'print(model.encode(["The text to embed.", "Another text."]))',
        ]

    @classmethod
    def inputs(cls, rows: Iterable[tuple[str, ...]]) -> list[Any]:
        """See `Predictor.inputs`; each text of a pair is one."""
        return [text for row in rows for text in row]

    @property
    def prompts(self) -> dict[str, str]:
        """What may stand before a text, by name."""
        known = self._about.sentences
        return {} if known is None else known.prompts

    def __call__(
        self,
        texts: str | Iterable[str],
        /,
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
        vectors: VectorType = "float32",
    ) -> Array:
        """Return the vector of one text, or (texts, dimensions) those of several; see `predict`."""
        found = self.predict(texts, prompt=prompt, dimensions=dimensions, vectors=vectors)
        one: Array = found[0] if isinstance(texts, str) else found
        return one

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
        vectors: VectorType = "float32",
    ) -> Array:
        """Return (texts, dimensions) vectors, of unit length if the folder normalizes them.

        Args:
            texts: a text, or an iterable of texts.
            prompt: name of the prompt that goes before each text: query, document, or another of `prompts`. The
                folder's default if None.
            dimensions: how many leading dimensions are kept, for models that were trained for that (Matryoshka).
                Shorter vectors get unit length again.
            vectors: float32; int8, each vector scaled so that its largest number is 127; or binary, (texts,
                dimensions / 8) uint8, the signs of the numbers, eight in a byte.

        Raises:
            InvalidParameter: a value is out of range, there is no such prompt, or something is no text.
        """
        known = get_args(VectorType)
        if vectors not in known:
            raise InvalidParameter(
                f"vectors must be one of {', '.join(known)}, but got vectors={one_line(repr(vectors), 40)}; correct it"
            )
        before, asked = self._prompt(prompt), checked_texts(texts, pairs=False)
        parts = [self._vectors([before + text for text in part]) for _, part in self._chunks(asked)]
        whole = np.concatenate(parts) if parts else self._vectors([before])[:0]
        form = VectorForm(dimensions, vectors)
        return form.stored(self._scaled(form.shortened(whole), whole.shape[1]))

    def answer(self, request: TextsToEmbed) -> list[list[float]]:
        """See `Predictor.answer`."""
        listed: list[list[float]] = self.predict(
            request.texts, prompt=request.prompt, dimensions=request.dimensions, vectors=request.vectors
        ).tolist()
        return listed

    def _prompt(self, name: str | None) -> str:
        known, sentences = self.prompts, self._about.sentences
        default = "" if sentences is None else sentences.default_prompt
        if name is None:
            return default
        for one in _USUAL.get(name, (name,)):
            if one in known:
                return known[one]
        if name in _USUAL:
            return default
        raise InvalidParameter(
            f"prompt must be one of {', '.join({**_USUAL, **known})}, but got prompt={one_line(repr(name), 40)}; "
            "correct it, or leave it out"
        )

    def _vectors(self, texts: list[str]) -> Array:
        vectors: Array | None = None
        for batch, outputs in self._outputs(self._encoder.rows(texts)):
            part = outputs["sentence_embedding"]
            vectors = np.empty((len(texts), part.shape[1]), np.float32) if vectors is None else vectors
            vectors[batch] = part
        assert vectors is not None
        return vectors

    def _scaled(self, vectors: Array, width: int) -> Array:
        """Return vectors that were `width` long with unit length again, if the folder normalizes them."""
        if vectors.shape[1] == width or self._about.sentences is None or not self._about.sentences.normalize:
            return vectors
        unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit
