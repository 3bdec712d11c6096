"""Sets of flat indices as packed bits, and their compact form on disk."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from tamperlens.base.errors import InputError

_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.int64)
_CHUNK = 1 << 24
_ESCAPE = 255


def pack(flags: Bool[Tensor, "*shape"]) -> UInt8[Tensor, " bytes"]:
    """Eight flags a byte, first flag in the lowest bit; unused bits of the last byte are zero."""
    flat = flags.detach().reshape(-1).cpu().numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack(bits: UInt8[Tensor, " bytes"], shape: tuple[int, ...]) -> Bool[Tensor, "*shape"]:
    """The inverse of `pack`."""
    n = int(np.prod(shape, dtype=np.int64))
    flat = np.unpackbits(bits.numpy(), count=n, bitorder="little").view(np.bool_)
    return torch.from_numpy(flat).reshape(shape)


def n_bytes(n: int) -> int:
    """Bytes that n packed flags take."""
    return -(-n // 8)


def count(bits: UInt8[Tensor, " bytes"]) -> int:
    """Number of set bits."""
    flat = bits.numpy()
    total = 0
    for start in range(0, flat.size, _CHUNK):
        total += int(np.bincount(flat[start : start + _CHUNK], minlength=256) @ _ONES)
    return total


def clear_tail(bits: UInt8[Tensor, " bytes"], n: int) -> UInt8[Tensor, " bytes"]:
    """Zero the unused bits of the last byte, in place."""
    if n % 8 and bits.numel():
        bits[-1] &= (1 << (n % 8)) - 1
    return bits


def to_gaps(bits: UInt8[Tensor, " bytes"]) -> UInt8[Tensor, " gaps"]:
    """Distances between set bits, a byte each: 255 says "go on 255 places and read on".

    At 1 % density a bit takes about 8.7 bits, against an entropy of 8.1.
    """
    flat = np.unpackbits(bits.numpy(), bitorder="little")
    gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
    escapes = gaps // _ESCAPE
    ends = np.cumsum(escapes + 1) - 1
    coded = np.full(int(ends[-1]) + 1 if ends.size else 0, _ESCAPE, dtype=np.uint8)
    coded[ends] = gaps - escapes * _ESCAPE
    return torch.from_numpy(coded)


def from_gaps(gaps: UInt8[Tensor, " gaps"], n: int) -> UInt8[Tensor, " bytes"]:
    """The inverse of `to_gaps`, for n flags.

    Raises:
        InputError: an index lies outside the n flags.
    """
    coded = gaps.numpy().astype(np.int64)
    ends: npt.NDArray[np.bool_] = coded != _ESCAPE
    places = (np.cumsum(coded) + np.cumsum(ends) - 1)[ends]
    if places.size and int(places[-1]) >= n:
        raise InputError("a mask file is damaged: an index lies outside its matrix; copy the file again")
    flat = np.zeros(n_bytes(n) * 8, dtype=np.uint8)
    flat[places] = 1
    return torch.from_numpy(np.packbits(flat, bitorder="little"))
