"""Sentence embedders: a vector for each text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from whet.errors import InvalidParameter
from whet.run.kinds.base import Predictor, checked_texts
from whet.utils.inputs import one_line

__all__ = ["Embedder", "TextsToEmbed"]

Array = np.ndarray[Any, Any]
Output = Literal["float32", "int8", "binary"]
"""How the numbers of a vector are given: as they are, in 8 bits each, or their signs, eight in a byte."""

_OUTPUTS = ("float32", "int8", "binary")
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
    output: Literal["float32", "int8", "binary"] = "float32"


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
        output: Output = "float32",
    ) -> Array:
        """Return the vector of one text, or (texts, dimensions) those of several; see `predict`."""
        vectors = self.predict(texts, prompt=prompt, dimensions=dimensions, output=output)
        one: Array = vectors[0] if isinstance(texts, str) else vectors
        return one

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
        output: Output = "float32",
    ) -> Array:
        """Return (texts, dimensions) vectors, of unit length if the folder normalizes them.

        Args:
            texts: a text, or an iterable of texts.
            prompt: name of the prompt that goes before each text: query, document, or another of `prompts`. The
                folder's default if None.
            dimensions: how many leading dimensions are kept, for models that were trained for that (Matryoshka).
                Shorter vectors get unit length again.
            output: float32; int8, each vector scaled so that its largest number is 127; or binary, (texts,
                dimensions / 8) uint8, the signs of the numbers, eight in a byte.

        Raises:
            InvalidParameter: a value is out of range, there is no such prompt, or something is no text.
        """
        if output not in _OUTPUTS:
            raise InvalidParameter(
                f"output must be one of {', '.join(_OUTPUTS)}, but got output={one_line(repr(output), 40)}; correct it"
            )
        before, asked = self._prompt(prompt), checked_texts(texts, pairs=False)
        parts = [self._vectors([before + text for text in part]) for _, part in self._chunks(asked)]
        vectors = np.concatenate(parts) if parts else self._vectors([before])[:0]
        return _encoded(self._shortened(vectors, dimensions), output)

    def answer(self, request: TextsToEmbed) -> list[list[float]]:
        """See `Predictor.answer`."""
        vectors = self.predict(
            request.texts, prompt=request.prompt, dimensions=request.dimensions, output=request.output
        )
        listed: list[list[float]] = vectors.tolist()
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

    def _shortened(self, vectors: Array, dimensions: int | None) -> Array:
        width = vectors.shape[1]
        if dimensions is None or dimensions == width:
            return vectors
        if not 1 <= dimensions < width:
            raise InvalidParameter(f"1 <= dimensions <= {width} must hold, but got dimensions={dimensions}; correct it")
        short: Array = vectors[:, :dimensions]
        if self._about.sentences is not None and self._about.sentences.normalize:
            unit: Array = short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
            return unit
        return short


def _encoded(vectors: Array, output: Output) -> Array:
    if output == "binary":
        return np.packbits(vectors > 0, axis=1)
    if output == "int8":
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
        small: Array = np.rint(vectors * (127 / largest)).astype(np.int8)
        return small
    return vectors
