"""How precisely user states are kept: as float16, or at half the size as int8 with one scale a vector. Pure.

A state is rounded when it is made, not when it is stored: so a cached and a fresh answer are the
same.
"""

from enum import Enum

import numpy as np

from service.arrays import Floats

LARGEST = float(np.finfo(np.float16).max)


_SCALE_BYTES = 4


_MANTISSA_LEFT_OUT = 13
"""Bits of a float32 scale that are 0, so that its products with int8 are exact and rounding twice is once."""


_SMALLEST = 1e-30
"""Vectors of nothing larger are taken for zeros: their scale would leave the range of float32."""


class Precision(Enum):
    """What the numbers of a user state are kept as."""

    FLOAT16 = "float16"
    INT8 = "int8"

    def rounded(self, values: Floats) -> Floats:
        """The nearest values that can be kept: float32, of the same shape; each last axis is a vector."""
        within = np.clip(values, -LARGEST, LARGEST)
        if self is Precision.FLOAT16:
            return within.astype(np.float16).astype(np.float32)
        scales = _scales(within)
        return np.asarray(np.rint(within / scales) * scales, np.float32)

    def pack(self, values: Floats) -> bytes:
        """A rounded vector as bytes."""
        if self is Precision.FLOAT16:
            return values.astype("<f2").tobytes()
        scale = _scales(values)
        return bytes(
            scale.astype("<f4").tobytes() + np.rint(values / scale).astype(np.int8).tobytes()
        )

    def unpack(self, data: bytes, n: int, offset: int = 0) -> Floats:
        """The vector of n numbers whose bytes begin at an offset."""
        if self is Precision.FLOAT16:
            return np.frombuffer(data, "<f2", n, offset).astype(np.float32)
        scale = np.frombuffer(data, "<f4", 1, offset)
        return np.asarray(
            np.frombuffer(data, np.int8, n, offset + _SCALE_BYTES) * scale, np.float32
        )

    def size(self, n: int) -> int:
        """Bytes of a packed vector of n numbers."""
        return 2 * n if self is Precision.FLOAT16 else _SCALE_BYTES + n

    def length(self, size: int) -> int | None:
        """How many numbers a packed vector of so many bytes has; None if none has."""
        n = size // 2 if self is Precision.FLOAT16 else size - _SCALE_BYTES
        return n if n >= 0 and self.size(n) == size else None


def _scales(values: Floats) -> Floats:
    """One for each last axis, [..., 1]: the largest value is 127 times the scale, or little less."""
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scales = np.where(largest > _SMALLEST, largest / np.float32(127.0), np.float32(1.0))
    bits = scales.astype(np.float32).view(np.uint32)
    left_out = np.uint32(2**_MANTISSA_LEFT_OUT - 1)
    return np.asarray(((bits + left_out) & ~left_out).view(np.float32))
