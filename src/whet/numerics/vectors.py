"""Vectors as an index keeps them: with fewer dimensions, in 8 bits a number, or in one.

Leading dimensions carry most of a vector where a model was trained for that.

Source: Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, arXiv 2205.13147.
"""

from typing import Any, NamedTuple

import numpy as np

from whet.errors import InvalidParameter
from whet.utils.inputs import one_line
from whet.utils.precision import VectorType

__all__ = ["WHOLE", "VectorForm", "require_dimensions"]

Array = np.ndarray[Any, Any]


class VectorForm(NamedTuple):
    """What is kept of a vector."""

    dimensions: int | None = None
    """How many leading dimensions; all if None."""
    vectors: VectorType = "float32"
    """How each number is kept."""

    def shortened(self, vectors: Array) -> Array:
        """Return the leading dimensions of (texts, width) vectors, in whatever length they then have.

        Raises:
            InvalidParameter: there are fewer.
        """
        if self.dimensions is None:
            return vectors
        require_dimensions(self.dimensions, vectors.shape[1])
        short: Array = vectors[:, : self.dimensions]
        return short

    def stored(self, vectors: Array) -> Array:
        """Return what is kept of (texts, dimensions) vectors.

        That is float32; or int8, each vector scaled so that its largest number is 127; or (texts, dimensions / 8)
        uint8, the signs of the numbers.
        """
        if self.vectors == "binary":
            return np.packbits(vectors > 0, axis=1)
        if self.vectors == "int8":
            largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
            small: Array = np.rint(vectors * (127 / largest)).astype(np.int8)
            return small
        return vectors.astype(np.float32)

    def read(self, stored: Array, dimensions: int) -> Array:
        """Return (texts, dimensions) float32 vectors with the cosines of what is kept; a sign counts as 1 or -1.

        Args:
            stored: from `stored`.
            dimensions: of the vectors before they were stored.
        """
        bits = np.unpackbits(stored, axis=1, count=dimensions) * 2.0 - 1 if self.vectors == "binary" else stored
        read: Array = bits.astype(np.float32)
        return read


WHOLE = VectorForm()
"""Vectors as a model gives them."""


def require_dimensions(dimensions: int, width: int) -> None:
    """Refuse to keep more dimensions than vectors of a width have, or none.

    Raises:
        InvalidParameter: that is asked for.
    """
    if not (isinstance(dimensions, int) and 1 <= dimensions <= width):
        got = one_line(repr(dimensions), 40)
        raise InvalidParameter(f"1 <= dimensions <= {width} must hold, but got dimensions={got}; correct it")
