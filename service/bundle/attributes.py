"""Items' attributes, the conditions that filters put on them, and a cache of the results."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.arrays import Bools
from service.retrieval.filter import Condition

_ENTRY_BYTES = 1_024
"""Approximate bytes of an entry besides its bitmap and its key's text."""


class Attribute(Protocol):
    """A column of items.parquet that filters can use."""

    def matches(self, condition: Condition) -> Bools:
        """Finds the items for which a condition holds: bool [n_items]."""

    def fault(self, condition: Condition) -> str | None:
        """Says why a condition does not fit this attribute; None if it fits."""


class TextAttribute:
    """Any number of texts an item, as an inverted index: text -> item indices, int32.

    Args:
        column: Texts or lists of texts, [n_items].
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._n_items = len(column)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            owners = pc.list_parent_indices(column.combine_chunks()).to_numpy(zero_copy_only=False)
            texts = pc.list_flatten(column)
        else:
            owners = np.arange(len(column))
            texts = column
        encoded = texts.combine_chunks().dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        names = encoded.dictionary.to_pylist()
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        self._items = {
            name: owners[order[start:stop]].astype(np.int32)
            for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
        }

    def matches(self, condition: Condition) -> Bools:
        """Finds the items that carry at least one of the values: bool [n_items]."""
        mask = np.zeros(self._n_items, bool)
        for value in condition.values:
            if value in self._items:
                mask[self._items[value]] = True
        return mask

    def fault(self, condition: Condition) -> str | None:
        """Says that ranges are for numbers."""
        if not condition.values or condition.minimum is not None or condition.maximum is not None:
            return "has texts: expected values, and no min or max"
        return None


class NumberAttribute:
    """One number an item; a missing number lies in no range.

    Args:
        column: Numbers or nulls, [n_items].
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._numbers = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()

    def matches(self, condition: Condition) -> Bools:
        """Finds the items whose number lies in the range, both ends included: bool [n_items]."""
        low = -np.inf if condition.minimum is None else condition.minimum
        high = np.inf if condition.maximum is None else condition.maximum
        mask: Bools = (self._numbers >= low) & (self._numbers <= high)
        return mask

    def fault(self, condition: Condition) -> str | None:
        """Says that values are for texts, or what is wrong with the range."""
        low = condition.minimum
        high = condition.maximum
        if condition.values or (low is None and high is None):
            return "has numbers: expected min, max or both, and no values"
        if any(end is not None and np.isnan(end) for end in (low, high)):
            return "has numbers: expected a number for min and max, found NaN"
        if low is not None and high is not None and low > high:
            return f"has numbers: expected min up to max, found min {low:g} above max {high:g}"
        return None


def make_attribute(column: pa.ChunkedArray) -> Attribute:
    """Makes the kind of attribute that fits a column's type."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return NumberAttribute(column)
    return TextAttribute(column)


class BitmapCache:
    """An LRU cache of bitmaps that is bounded in bytes. Threads may share it.

    Args:
        limit_bytes: Memory for bitmaps and keys; the least recently used are evicted above it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0
        self._limit = limit_bytes
        self._bitmaps: OrderedDict[Hashable, tuple[Bools, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Bools]) -> Bools:
        """Returns the bitmap of a key, made if it is not cached; it is read-only."""
        with self._lock:
            cached = self._bitmaps.get(key)
            if cached is not None:
                self._bitmaps.move_to_end(key)
                return cached[0]
        bitmap = make()
        bitmap.flags.writeable = False
        size = bitmap.nbytes + len(repr(key)) + _ENTRY_BYTES
        with self._lock:
            _, replaced = self._bitmaps.pop(key, (None, 0))  # another thread may have made it, too
            self._bitmaps[key] = bitmap, size
            self.size_bytes += size - replaced
            while self.size_bytes > self._limit:
                _, (_, evicted) = self._bitmaps.popitem(last=False)
                self.size_bytes -= evicted
        return bitmap
