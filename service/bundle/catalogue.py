"""The bundle's items: ids, titles, popularity, and the items that filters allow."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.arrays import Bools, Hashes, Ints
from service.bundle.attributes import Attribute, BitmapCache, make_attribute
from service.bundle.text_column import MANY, read_texts
from service.errors import UnfitCondition, UnknownAttribute
from service.retrieval.filter import Condition, Filter

CACHED_BYTES = 2**27
"""Memory for the bitmaps of conditions and filters, one byte an item each: 128 MiB. A larger cache
spares more filters their evaluation."""


_HASHED_AT_ONCE = 2**18
"""Item ids hashed at a time: bounds the memory for their digests to 2 MiB."""


def item_hash(item_id: str) -> int:
    """Computes the 64-bit BLAKE2b of an item id.

    Stored histories hold hashes: they do not depend on the numbering of a bundle's items.
    """
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8).digest(), "little")


class Catalogue:
    """Items by id and by index, and bitmaps of the items that filters allow.

    Args:
        column: Reads a column of items.parquet by its name.
        attributes: Names of the columns that filters can use.

    Attributes:
        item_ids: Item ids in index order.
        titles: Titles in index order, "" where there is none.
        popularity: Training interactions, int64 [n_items].
        by_popularity: Item indices, most popular first, int64 [n_items].
        hashes: item_hash of the item ids, uint64 [n_items].
    """

    def __init__(self, column: Callable[[str], pa.ChunkedArray], attributes: Iterable[str]) -> None:
        self.item_ids: Sequence[str] = read_texts(column("item_id"))
        self.titles: Sequence[str] = read_texts(column("title"))
        self.popularity: Ints = column("popularity").to_numpy().astype(np.int64)
        self.by_popularity: Ints = np.argsort(-self.popularity, kind="stable")
        self.hashes: Hashes = _hashes(self.item_ids)
        self._hash_order = np.argsort(self.hashes, kind="stable").astype(np.int32)
        self._sorted_hashes: Hashes = self.hashes[self._hash_order]
        self._index: dict[str, int] | None = None  # many items are found by their hashes
        if len(self) < MANY:
            self._index = {item_id: index for index, item_id in enumerate(self.item_ids)}
        self._attributes: dict[str, Attribute] = {
            name: make_attribute(column(name)) for name in attributes
        }
        self._bitmaps = BitmapCache(CACHED_BYTES)

    @classmethod
    def read(cls, path: Path, attributes: Iterable[str]) -> "Catalogue":
        """Reads items.parquet one column at a time: the whole table would double the memory."""
        with pq.ParquetFile(path, memory_map=True) as file:
            catalogue = cls(lambda name: file.read([name])[name], attributes)
        pa.default_memory_pool().release_unused()
        return catalogue

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def attributes(self) -> list[str]:
        """Names that conditions can use."""
        return list(self._attributes)

    def index_of(self, item_id: str) -> int | None:
        """Finds an item's index; None if the bundle does not know it."""
        if self._index is not None:
            return self._index.get(item_id)
        index = self._find_by_hash(item_id)
        return None if index < 0 else index

    def find(self, item_ids: Iterable[str]) -> Ints:
        """Finds items' indices in the order given, -1 for unknown items: int64 [n]."""
        if self._index is not None:
            return np.fromiter((self._index.get(item_id, -1) for item_id in item_ids), np.int64)
        return np.fromiter(map(self._find_by_hash, item_ids), np.int64)

    def _find_by_hash(self, item_id: str) -> int:
        """Finds an item's index, -1 if unknown; compares ids, too, as hashes may collide."""
        digest = item_hash(item_id)
        place = int(self._sorted_hashes.searchsorted(np.uint64(digest)))
        while place < len(self) and self._sorted_hashes[place] == digest:
            index = int(self._hash_order[place])
            if self.item_ids[index] == item_id:
                return index
            place += 1
        return -1

    def find_hashes(self, hashes: Hashes) -> Ints:
        """Finds the indices of hashed ids, -1 for unknown ones: int64 [n].

        Of items with the same hash it finds the first.
        """
        if not len(hashes) or not len(self):
            return np.full(len(hashes), -1, np.int64)
        position = np.minimum(np.searchsorted(self._sorted_hashes, hashes), len(self) - 1)
        known = self._sorted_hashes[position] == hashes
        return np.where(known, self._hash_order[position], np.int64(-1))

    def indices_of(self, item_ids: Iterable[str]) -> Ints:
        """Finds the indices of those ids that the bundle knows, in the order given."""
        items = self.find(item_ids)
        return items[items >= 0]

    def indices_of_hashes(self, hashes: Hashes) -> Ints:
        """Finds the indices of those hashed ids that the bundle knows, in the order given."""
        items = self.find_hashes(hashes)
        return items[items >= 0]

    def check(self, condition: Condition) -> None:
        """Checks that a condition names a known attribute and fits its kind.

        Raises:
            UnknownAttribute: the items have no such attribute.
            UnfitCondition: the attribute has texts and the condition is a range, or the reverse.
        """
        attribute = self._attributes.get(condition.attribute)
        if attribute is None:
            raise UnknownAttribute(condition.attribute, self._attributes)
        if fault := attribute.fault(condition):
            raise UnfitCondition(f"attribute {condition.attribute!r} {fault}")

    def allowed(self, item_filter: Filter) -> Bools | None:
        """Finds the items that a checked filter allows: bool [n_items]; None for all.

        The array may be shared, and must not be changed.
        """
        if not item_filter:
            return None
        if not item_filter.item_ids:
            return self._bitmaps.get(item_filter, lambda: self._combined(item_filter))
        mask = np.zeros(len(self), bool)
        mask[self.indices_of(item_filter.item_ids)] = True
        return mask & self._combined(item_filter)

    def _combined(self, item_filter: Filter) -> Bools:
        mask = np.ones(len(self), bool)
        for condition in item_filter.all_of:
            mask &= self._matches(condition)
        for condition in item_filter.none_of:
            mask &= ~self._matches(condition)
        return mask

    def members(self, attribute: str, value: str) -> Bools:
        """Finds the items that carry a text of an attribute: bool [n_items], shared, read-only."""
        return self._matches(Condition(attribute, (value,)))

    def _matches(self, condition: Condition) -> Bools:
        attribute = self._attributes[condition.attribute]
        return self._bitmaps.get(condition, lambda: attribute.matches(condition))


def _hashes(item_ids: Sequence[str]) -> Hashes:
    """Computes item_hash of many ids: uint64 [n]."""
    hashes = np.empty(len(item_ids), np.uint64)
    for start in range(0, len(item_ids), _HASHED_AT_ONCE):
        part = item_ids[start : start + _HASHED_AT_ONCE]
        digests = (hashlib.blake2b(item_id.encode(), digest_size=8).digest() for item_id in part)
        hashes[start : start + len(part)] = np.frombuffer(b"".join(digests), "<u8")
    return hashes
