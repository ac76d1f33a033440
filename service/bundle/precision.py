"""The precision of stored user states: float16, or int8 with one scale a vector at half the size.

A state is rounded when it is made, not when it is stored, so that cached and fresh answers agree.
"""

from enum import Enum

import numpy as np

from service.arrays import Floats

LARGEST = float(np.finfo(np.float16).max)
"""Largest absolute value of a rounded number: what float16 can hold."""


_SCALE_BYTES = 4


_ZEROED_BITS = 13
"""Low bits of a float32 scale that are 0. Its products with int8 are exact then, so that rounding a
rounded vector changes nothing."""


_SMALLEST = 1e-30
"""Vectors without a larger value are rounded to zeros: float32 could not hold their scale."""


class Precision(Enum):
    """The type in which the numbers of a user state are stored."""

    FLOAT16 = "float16"
    INT8 = "int8"

    def rounded(self, values: Floats) -> Floats:
        """Rounds vectors [..., n] to the nearest values that can be stored: float32 [..., n]."""
        within = np.clip(values, -LARGEST, LARGEST)
        if self is Precision.FLOAT16:
            return within.astype(np.float16).astype(np.float32)
        scales = _scales(within)
        return np.asarray(np.rint(within / scales) * scales, np.float32)

    def pack(self, values: Floats) -> bytes:
        """Packs a rounded vector [n] into bytes."""
        if self is Precision.FLOAT16:
            return values.astype("<f2").tobytes()
        scale = _scales(values)
        numbers = np.rint(values / scale).astype(np.int8)
        return bytes(scale.astype("<f4").tobytes() + numbers.tobytes())

    def unpack(self, data: bytes, n: int, offset: int = 0) -> Floats:
        """Unpacks the vector of n numbers whose bytes begin at an offset: float32 [n]."""
        if self is Precision.FLOAT16:
            return np.frombuffer(data, "<f2", n, offset).astype(np.float32)
        scale = np.frombuffer(data, "<f4", 1, offset)
        numbers = np.frombuffer(data, np.int8, n, offset + _SCALE_BYTES)
        return np.asarray(numbers * scale, np.float32)

    def size(self, n: int) -> int:
        """Returns the bytes of a packed vector of n numbers."""
        return 2 * n if self is Precision.FLOAT16 else _SCALE_BYTES + n

    def length(self, size: int) -> int | None:
        """Returns how many numbers a packed vector of this many bytes holds; None if impossible."""
        n = size // 2 if self is Precision.FLOAT16 else size - _SCALE_BYTES
        return n if n >= 0 and self.size(n) == size else None


def _scales(values: Floats) -> Floats:
    """Computes scales of vectors [..., n]: float32 [..., 1], at least the largest value / 127."""
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scales = np.where(largest > _SMALLEST, largest / np.float32(127.0), np.float32(1.0))
    bits = scales.astype(np.float32).view(np.uint32)
    zeroed = np.uint32(2**_ZEROED_BITS - 1)
    return np.asarray(((bits + zeroed) & ~zeroed).view(np.float32))
