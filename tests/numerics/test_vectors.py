"""What an index keeps of vectors, and what that does to their cosines."""

import numpy as np
import pytest

from whet.errors import InvalidParameter
from whet.numerics.vectors import VectorForm

VECTORS = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)


def cosines(one, other):
    scaled = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other)]
    return (scaled[0] * scaled[1]).sum(1)


def read(form, vectors=VECTORS):
    return form.read(form.stored(vectors), vectors.shape[1])


def test_float32_is_kept_as_it_is():
    np.testing.assert_array_equal(read(VectorForm()), VECTORS)


def test_eight_bits_keep_the_directions():
    assert VectorForm(None, "int8").stored(VECTORS).nbytes == VECTORS.size
    assert cosines(read(VectorForm(None, "int8")), VECTORS).min() > 0.9999


def test_cosines_of_signs_follow_from_their_hamming_distance():
    """20 dimensions take 3 bytes; the 4 bits beyond them count nowhere."""
    form = VectorForm(None, "binary")
    stored = form.stored(VECTORS)
    assert stored.shape == (20, 3)
    hamming = np.unpackbits(stored[0] ^ stored[1]).sum()
    assert cosines(read(form)[:1], read(form)[1:2]) == pytest.approx(1 - 2 * hamming / 20)


def test_leading_dimensions_are_kept():
    np.testing.assert_array_equal(VectorForm(3).shortened(VECTORS), VECTORS[:, :3])
    np.testing.assert_array_equal(VectorForm(20).shortened(VECTORS), VECTORS)


@pytest.mark.parametrize("dimensions", [0, 21])
def test_there_must_be_so_many(dimensions):
    with pytest.raises(InvalidParameter, match=f"1 <= dimensions <= 20 must hold, but got dimensions={dimensions}"):
        VectorForm(dimensions).shortened(VECTORS)
