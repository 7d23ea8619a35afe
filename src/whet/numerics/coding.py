"""Compact storage for small integers: fixed-width bit packing, or an entropy code.

Bit packing stores n integers below 2**bits in ceil(n · bits / 8) bytes. The entropy code is DEFLATE: Huffman codes for
single bytes, and one code for a run of equal bytes.

Source: Deutsch, "DEFLATE Compressed Data Format Specification version 1.3", RFC 1951, 1996, for the entropy code.
"""

import zlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Coding",
    "coding_used",
    "decode_integers",
    "deflate",
    "encode_integers",
    "inflate",
    "pack_bits",
    "to_narrowest_dtype",
    "unpack_bits",
]

Coding = Literal["fixed", "entropy"]
"""How integers are stored: "fixed" gives each the same number of bits, "entropy" gives frequent ones fewer."""
BYTE = 8
STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
"""Strategies without a search for repeated strings: weights have none, and the search takes minutes."""


def pack_bits(numbers: Tensor, bits: int) -> Tensor:
    """Return the integers bit-packed, lowest bit first.

    Args:
        numbers: (n,) uint8, each below 2**bits.
        bits: bits per integer, 1 ... 8.

    Returns:
        (ceil(n · bits / 8),) uint8.
    """
    single = np.unpackbits(numbers.cpu().numpy()[:, None], axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(single, bitorder="little")).to(numbers.device)


def unpack_bits(stored: Tensor, bits: int, count: int) -> Tensor:
    """Return the integers that `pack_bits` packed, (count,) uint8."""
    single = np.unpackbits(stored.cpu().numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(single, axis=1, bitorder="little")[:, 0]).to(stored.device)


def encode_integers(numbers: Tensor, bits: int, coding: Coding) -> tuple[Tensor, Coding]:
    """Return the stored bytes, (bytes,) uint8, and the coding used.

    The coding used is "entropy" only if `coding` allows it and the result is shorter than bit packing.

    Args:
        numbers: (n,) uint8, each below 2**bits.
        bits: bits per integer, 1 ... 8.
        coding: the coding that the caller allows.
    """
    fixed = pack_bits(numbers, bits)
    if coding == "entropy" and len(shorter := deflate(numbers, bits)) < len(fixed):
        return shorter, "entropy"
    return fixed, "fixed"


def coding_used(size: int, bits: int, count: int) -> Coding:
    """Return the coding of `count` integers that take `size` bytes; see `encode_integers`."""
    return "fixed" if size == -(-count * bits // BYTE) else "entropy"


def decode_integers(stored: Tensor, bits: int, count: int, coding: Coding) -> Tensor:
    """Return the integers that `encode_integers` stored, (count,) uint8.

    Args:
        stored: (bytes,) uint8.
        bits: bits per integer, 1 ... 8.
        count: how many integers were stored.
        coding: the coding that `encode_integers` reported.

    Raises:
        ValueError: the bytes are not a valid entropy code.
    """
    return (inflate if coding == "entropy" else unpack_bits)(stored, bits, count)


def to_narrowest_dtype(values: Tensor) -> Tensor:
    """Return the values in bfloat16 or float16 if that is lossless, otherwise unchanged."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal((narrow := values.to(dtype)).to(values.dtype), values):
            return narrow
    return values


def deflate(numbers: Tensor, bits: int) -> Tensor:
    """Return the integers in an entropy code, (bytes,) uint8; the arguments are those of `pack_bits`."""
    shifts = _shifts(bits)
    padded = np.zeros(-(-len(numbers) // len(shifts)) * len(shifts), dtype=np.uint8)
    padded[: len(numbers)] = numbers.cpu().numpy()
    # a byte holds several integers, so that each can take less than one bit, the shortest Huffman code
    content = (padded.reshape(-1, len(shifts)) << shifts).sum(1, dtype=np.uint8).tobytes()
    shortest = min((_deflate(content, strategy) for strategy in STRATEGIES), key=len)
    return torch.frombuffer(bytearray(shortest), dtype=torch.uint8).to(numbers.device)


def inflate(stored: Tensor, bits: int, count: int) -> Tensor:
    """Return the integers that `deflate` stored, (count,) uint8.

    Raises:
        ValueError: the bytes are not a DEFLATE stream, or hold fewer than `count` integers.
    """
    try:
        content = np.frombuffer(zlib.decompress(stored.cpu().numpy().tobytes()), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(f"the codes must be a complete DEFLATE stream, but got {error}") from error
    numbers = ((content[:, None] >> _shifts(bits)) & (2**bits - 1)).reshape(-1)
    if len(numbers) < count:
        raise ValueError(f"there must be {count} codes, but got {len(numbers)}")
    return torch.from_numpy(numbers[:count].copy()).to(stored.device)


def _shifts(bits: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.arange(BYTE // bits, dtype=np.uint8) * np.uint8(bits)


def _deflate(content: bytes, strategy: int) -> bytes:
    coder = zlib.compressobj(level=9, memLevel=9, strategy=strategy)
    return coder.compress(content) + coder.flush()
