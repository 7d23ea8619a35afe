import numpy as np
import pytest
import torch

from whet.numerics.coding import deflate, inflate, pack_bits, unpack_bits


def numbers(bits: int, count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(seed)).byte()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 1001])
def test_both_codings_are_lossless(bits, count):
    known = numbers(bits, count)
    known[0] = 2**bits - 1
    for stored, restore in ((pack_bits(known, bits), unpack_bits), (deflate(known, bits), inflate)):
        assert torch.equal(restore(stored, bits, count), known)
    assert len(pack_bits(known, bits)) == -(-count * bits // 8)


def test_bits_are_side_by_side_the_lowest_first():
    assert pack_bits(torch.tensor([1, 2, 3], dtype=torch.uint8), 2).tolist() == [0b00111001]
    assert pack_bits(torch.tensor([5, 3, 6], dtype=torch.uint8), 3).tolist() == [0b10011101, 0b1]


@pytest.mark.parametrize("bits", [1, 3, 4, 6])
def test_frequent_numbers_take_fewer_bytes_close_to_the_entropy(bits):
    """Within a code of whole bits for each group: a tenth above the entropy here."""
    values = 2**bits
    chances = np.exp(-np.arange(values) / (0.25 * values))
    chances /= chances.sum()
    drawn = np.random.default_rng(0).choice(values, size=200_000, p=chances).astype(np.uint8)
    entropy = -(chances * np.log2(chances)).sum()
    taken = len(deflate(torch.from_numpy(drawn), bits)) * 8 / len(drawn)
    assert entropy <= taken * 1.01
    assert taken <= 1.1 * entropy


def test_a_run_takes_next_to_nothing():
    assert len(deflate(torch.zeros(100_000, dtype=torch.uint8), 4)) < 1000


def test_broken_codes_are_refused():
    whole = deflate(numbers(4, 1000), 4)
    with pytest.raises(ValueError, match="the codes must be a complete DEFLATE stream"):
        inflate(whole[:-9], 4, 1000)
    with pytest.raises(ValueError, match="there must be 2000 codes, but got 1000"):
        inflate(whole, 4, 2000)
