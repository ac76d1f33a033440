"""Texts by number: as Python strings while they are few, in one buffer when they are many."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MANY = 250_000
"""From so many on, memory counts for more than the tenths of a microsecond that a look-up takes longer."""


class PackedTexts(Sequence[str]):
    """Texts in one UTF-8 buffer with their offsets: [n]; a null is the empty text.

    About 4 bytes a text beside its own, where a Python string takes 57 or more.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy()
        ends = np.cumsum(sizes, dtype=np.int64)
        offsets = np.concatenate([[0], ends])
        self._offsets = offsets.astype(np.uint32 if offsets[-1] < 2**32 else np.int64).data
        self._bytes = b"".join(_contents(chunk) for chunk in column.chunks)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        if place < 0:
            raise IndexError(f"text {place - len(self)} of {len(self)}")
        start, end = self._offsets[place], self._offsets[place + 1]
        return self._bytes[start:end].decode()

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return len(self._bytes) + self._offsets.nbytes


def texts(column: pa.ChunkedArray) -> Sequence[str]:
    """The column's texts, "" where there is none, in the form that suits their number."""
    if len(column) >= MANY:
        return PackedTexts(column)
    return [text or "" for text in column.to_pylist()]


def _contents(chunk: pa.Array) -> memoryview:
    """The bytes of a chunk's texts, one after the other; nulls take none."""
    large = chunk.cast(pa.large_string())
    if large.null_count:
        large = pc.fill_null(large, "")
    _, offsets, data = large.buffers()
    if not len(large) or data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64, len(large) + 1, large.offset * 8)
    return memoryview(data)[bounds[0] : bounds[-1]]
