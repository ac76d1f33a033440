"""The bundle's items as the service needs them: ids, titles, popularity, and which items a filter allows."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.arrays import Bools, Hashes, Ints
from service.errors import InvalidRequest

CACHED_CONDITIONS = 256
"""Bitmaps of conditions kept, least recently used dropped first: one byte an item each."""


def item_hash(item_id: str) -> int:
    """64-bit BLAKE2b of an item id: what stored histories hold, whatever a bundle's numbering."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Condition:
    """Holds for an item that has any of the values, or a number in [minimum, maximum]."""

    attribute: str
    values: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Filter:
    """Which items may be returned: all of all_of hold, none of none_of, only item_ids if there are any."""

    all_of: tuple[Condition, ...] = ()
    none_of: tuple[Condition, ...] = ()
    item_ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.all_of or self.none_of or self.item_ids)


class Attribute(Protocol):
    """One column of facts about items."""

    def matches(self, condition: Condition) -> Bools:
        """Which items the condition holds for: bool [n_items]."""

    def fault(self, condition: Condition) -> str | None:
        """Why the condition does not fit this attribute; None if it does."""


class TextAttribute:
    """Any number of texts an item, as an inverted index: text -> item indices."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._n_items = len(column)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            owners = pc.list_parent_indices(column.combine_chunks()).to_numpy(zero_copy_only=False)
            texts = pc.list_flatten(column)
        else:
            owners, texts = np.arange(len(column)), column
        encoded = texts.combine_chunks().dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        names = encoded.dictionary.to_pylist()
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        self._items = {
            name: owners[order[start:stop]].astype(np.int64)
            for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
        }

    def matches(self, condition: Condition) -> Bools:
        """Items that carry at least one of the values."""
        mask = np.zeros(self._n_items, bool)
        for value in condition.values:
            if value in self._items:
                mask[self._items[value]] = True
        return mask

    def fault(self, condition: Condition) -> str | None:
        """Ranges are for numbers."""
        if not condition.values or condition.minimum is not None or condition.maximum is not None:
            return "has texts: expected values, and no min or max"
        return None


class NumberAttribute:
    """One number an item; a missing number is in no range."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._numbers = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()

    def matches(self, condition: Condition) -> Bools:
        """Items whose number lies in the range, both ends included."""
        low = -np.inf if condition.minimum is None else condition.minimum
        high = np.inf if condition.maximum is None else condition.maximum
        mask: Bools = (self._numbers >= low) & (self._numbers <= high)
        return mask

    def fault(self, condition: Condition) -> str | None:
        """Values are for texts; a range needs an end that is a number, and must not be empty."""
        low, high = condition.minimum, condition.maximum
        if condition.values or (low is None and high is None):
            return "has numbers: expected min, max or both, and no values"
        if any(end is not None and np.isnan(end) for end in (low, high)):
            return "found NaN, expected a number for min and max"
        if low is not None and high is not None and low > high:
            return f"found min {low:g} above max {high:g}"
        return None


class Catalogue:
    """Items by id and by index, and the bitmaps of what filters allow.

    Attributes:
        item_ids: Item ids in index order.
        titles: Titles in index order, "" where there is none.
        popularity: Training interactions, int64 [n_items].
        by_popularity: Item indices, most popular first, int64 [n_items].
        hashes: Of the item ids, uint64 [n_items].
    """

    def __init__(self, table: pa.Table, attributes: Iterable[str]) -> None:
        self.item_ids: Sequence[str] = table["item_id"].to_pylist()
        self.titles: Sequence[str] = [title or "" for title in table["title"].to_pylist()]
        self.popularity: Ints = table["popularity"].to_numpy().astype(np.int64)
        self.by_popularity: Ints = np.lexsort((np.arange(len(self)), -self.popularity))
        self._index = {item_id: index for index, item_id in enumerate(self.item_ids)}
        self.hashes: Hashes = np.fromiter(map(item_hash, self.item_ids), np.uint64, len(self))
        self._hash_order: Ints = np.argsort(self.hashes)
        self._sorted_hashes: Hashes = self.hashes[self._hash_order]
        self._attributes: dict[str, Attribute] = {name: _attribute(table[name]) for name in attributes}
        self._bitmaps: OrderedDict[Condition, Bools] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def read(cls, path: Path, attributes: Iterable[str]) -> "Catalogue":
        """Reads items.parquet."""
        return cls(pq.read_table(path), attributes)

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def attributes(self) -> list[str]:
        """Names that conditions may use."""
        return list(self._attributes)

    def index_of(self, item_id: str) -> int | None:
        """The item's index; None if the bundle does not know it."""
        return self._index.get(item_id)

    def find(self, item_ids: Iterable[str]) -> Ints:
        """The items' indices in the order given, -1 for those that the bundle does not know."""
        return np.fromiter((self._index.get(item_id, -1) for item_id in item_ids), np.int64)

    def find_hashes(self, hashes: Hashes) -> Ints:
        """The same for hashed ids."""
        if not len(hashes) or not len(self):
            return np.full(len(hashes), -1, np.int64)
        position = np.minimum(np.searchsorted(self._sorted_hashes, hashes), len(self) - 1)
        known = self._sorted_hashes[position] == hashes
        return np.where(known, self._hash_order[position], -1)

    def indices_of(self, item_ids: Iterable[str]) -> Ints:
        """Indices of the ids that the bundle knows, in the order given."""
        found = self.find(item_ids)
        return found[found >= 0]

    def indices_of_hashes(self, hashes: Hashes) -> Ints:
        """The same for hashed ids."""
        found = self.find_hashes(hashes)
        return found[found >= 0]

    def check(self, item_filter: Filter, field: str = "filter") -> None:
        """Refuses a filter that names an unknown attribute or does not fit its kind.

        Raises:
            InvalidRequest: with the condition at fault.
        """
        for part, conditions in (("all_of", item_filter.all_of), ("none_of", item_filter.none_of)):
            for position, condition in enumerate(conditions):
                where = f"{field}.{part}[{position}]"
                attribute = self._attributes.get(condition.attribute)
                if attribute is None:
                    known = ", ".join(self._attributes) or "none"
                    raise InvalidRequest(
                        f"{where}.attribute", f"found {condition.attribute!r}, expected one of: {known}"
                    )
                if fault := attribute.fault(condition):
                    raise InvalidRequest(where, f"attribute {condition.attribute!r} {fault}")

    def allowed(self, item_filter: Filter) -> Bools | None:
        """Which items a checked filter allows: bool [n_items], not to be changed; None for all."""
        if not item_filter:
            return None
        mask = np.ones(len(self), bool)
        for condition in item_filter.all_of:
            mask &= self._matches(condition)
        for condition in item_filter.none_of:
            mask &= ~self._matches(condition)
        if item_filter.item_ids:
            listed = np.zeros(len(self), bool)
            listed[self.indices_of(item_filter.item_ids)] = True
            mask &= listed
        return mask

    def members(self, attribute: str, value: str) -> Bools:
        """Which items carry a text of an attribute: bool [n_items]."""
        return self._matches(Condition(attribute, (value,)))

    def _matches(self, condition: Condition) -> Bools:
        with self._lock:
            if (bitmap := self._bitmaps.get(condition)) is not None:
                self._bitmaps.move_to_end(condition)
                return bitmap
        bitmap = self._attributes[condition.attribute].matches(condition)
        with self._lock:
            self._bitmaps[condition] = bitmap
            while len(self._bitmaps) > CACHED_CONDITIONS:
                self._bitmaps.popitem(last=False)
        return bitmap


def _attribute(column: pa.ChunkedArray) -> Attribute:
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return NumberAttribute(column)
    return TextAttribute(column)
