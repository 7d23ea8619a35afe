"""Small whole numbers in as few bytes as they need: bits side by side, or fewer bits for frequent numbers.

Of numbers below 2**bits, n take ceil(n · bits / 8) bytes side by side. Where some are more frequent than others,
DEFLATE gives them fewer bits, and a run of equal ones no more than one code.

Source: Deutsch, "DEFLATE Compressed Data Format Specification version 1.3", RFC 1951, 1996, for the second.
"""

import zlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Coding",
    "decode_integers",
    "deflate",
    "encode_integers",
    "inflate",
    "pack_bits",
    "to_narrowest_dtype",
    "unpack_bits",
]

Coding = Literal["fixed", "entropy"]
"""How numbers are stored: all in as many bits as the largest needs, or frequent ones in fewer."""
BYTE = 8
STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
"""Longer repetitions than runs are not looked for: among weights there are none, and it takes minutes."""


def pack_bits(numbers: Tensor, bits: int) -> Tensor:
    """Return numbers side by side, the lowest bit first.

    Args:
        numbers: (n,) uint8, each below 2**bits.
        bits: 1 ... 8.

    Returns:
        (ceil(n · bits / 8),) uint8.
    """
    single = np.unpackbits(numbers.cpu().numpy()[:, None], axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(single, bitorder="little")).to(numbers.device)


def unpack_bits(stored: Tensor, bits: int, count: int) -> Tensor:
    """Return the `count` numbers that `pack_bits` was given, (count,) uint8."""
    single = np.unpackbits(stored.cpu().numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(single, axis=1, bitorder="little")[:, 0]).to(stored.device)


def encode_integers(numbers: Tensor, bits: int, coding: Coding) -> tuple[Tensor, Coding]:
    """Return numbers in few bytes, and how: by entropy only where that may be, and where it is shorter.

    Args:
        numbers: (n,) uint8, each below 2**bits.
        bits: 1 ... 8.
        coding: what may be.
    """
    fixed = pack_bits(numbers, bits)
    if coding == "entropy" and len(shorter := deflate(numbers, bits)) < len(fixed):
        return shorter, "entropy"
    return fixed, "fixed"


def decode_integers(stored: Tensor, bits: int, count: int, coding: Coding) -> Tensor:
    """Return the `count` numbers that `encode_integers` was given, (count,) uint8."""
    return (inflate if coding == "entropy" else unpack_bits)(stored, bits, count)


def to_narrowest_dtype(values: Tensor) -> Tensor:
    """Return the same values in 16 bits, bfloat16 or float16, if that loses nothing; otherwise as they are."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal((narrow := values.to(dtype)).to(values.dtype), values):
            return narrow
    return values


def deflate(numbers: Tensor, bits: int) -> Tensor:
    """Return numbers in a code that is short for frequent ones; arguments as for `pack_bits`."""
    shifts = _shifts(bits)
    whole = np.zeros(-(-len(numbers) // len(shifts)) * len(shifts), dtype=np.uint8)
    whole[: len(numbers)] = numbers.cpu().numpy()
    # as many as a byte holds, so that a pair can take less than two whole bits
    content = (whole.reshape(-1, len(shifts)) << shifts).sum(1, dtype=np.uint8).tobytes()
    shortest = min((_deflate(content, strategy) for strategy in STRATEGIES), key=len)
    return torch.frombuffer(bytearray(shortest), dtype=torch.uint8).to(numbers.device)


def inflate(stored: Tensor, bits: int, count: int) -> Tensor:
    """Return the `count` numbers that `deflate` was given, (count,) uint8.

    Raises:
        ValueError: the bytes are no such code.
    """
    try:
        content = np.frombuffer(zlib.decompress(stored.cpu().numpy().tobytes()), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(f"the codes must be whole, but {error}") from error
    numbers = ((content[:, None] >> _shifts(bits)) & (2**bits - 1)).reshape(-1)
    if len(numbers) < count:
        raise ValueError(f"there must be {count} codes, but got {len(numbers)}")
    return torch.from_numpy(numbers[:count].copy()).to(stored.device)


def _shifts(bits: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.arange(BYTE // bits, dtype=np.uint8) * np.uint8(bits)


def _deflate(content: bytes, strategy: int) -> bytes:
    coder = zlib.compressobj(level=9, memLevel=9, strategy=strategy)
    return coder.compress(content) + coder.flush()
