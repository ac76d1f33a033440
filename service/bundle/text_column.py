"""Columns of texts: Python strings for small columns, one buffer for large ones."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MANY = 250_000
"""Texts from which on a column is packed into one buffer. Above it, memory matters more than the
tenths of a microsecond that a packed look-up takes longer: docs/results/retrieval.md."""


class PackedTexts(Sequence[str]):
    """Texts in one UTF-8 buffer with their offsets, [n]; a null is the empty text.

    A text takes its bytes and 4 more, where a Python string takes 57 more.

    Args:
        column: Texts or nulls.
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
            return [self[index] for index in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        if place < 0:
            raise IndexError(f"text {place - len(self)} of {len(self)}")
        start = self._offsets[place]
        end = self._offsets[place + 1]
        return self._bytes[start:end].decode()

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return len(self._bytes) + self._offsets.nbytes


def read_texts(column: pa.ChunkedArray) -> Sequence[str]:
    """Reads a column's texts, "" for nulls, in the form that suits their number."""
    if len(column) >= MANY:
        return PackedTexts(column)
    return [text or "" for text in column.to_pylist()]


def _contents(chunk: pa.Array) -> memoryview:
    """Joins the bytes of a chunk's texts; nulls take none."""
    large = chunk.cast(pa.large_string())
    if large.null_count:
        large = pc.fill_null(large, "")
    _, offsets, data = large.buffers()
    if not len(large) or data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64, len(large) + 1, large.offset * 8)
    return memoryview(data)[bounds[0] : bounds[-1]]
