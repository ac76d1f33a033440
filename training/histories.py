"""Holds users' histories as ragged arrays: a row per user, its items oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from training.arrays import Bools, Ints


class PaddedHistories(NamedTuple):
    """The input of an encoder: items int64 and mask float32, both [batch, length], 0 at the end."""

    items: Tensor
    mask: Tensor


class Histories(NamedTuple):
    """offsets [n + 1] into items: row u is items[offsets[u]:offsets[u + 1]], oldest first."""

    offsets: Ints
    items: Ints

    @classmethod
    def single_items(cls, n_items: int) -> Self:
        """Returns one history per item of the catalogue, which holds just that item."""
        return cls(np.arange(n_items + 1, dtype=np.int64), np.arange(n_items, dtype=np.int64))

    @property
    def lengths(self) -> Ints:
        """Returns the number of items per row, [n]."""
        return np.diff(self.offsets)

    @property
    def size(self) -> int:
        """Returns the number of rows."""
        return len(self.offsets) - 1

    def rows(self, rows: Ints) -> Histories:
        """Returns the given rows, in the given order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Histories(offsets, self.items[np.repeat(self.offsets[rows], lengths) + positions])

    def keep(self, kept: Bools) -> Histories:
        """Returns the items where kept [n_events] is true; rows may become empty."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return Histories(before[self.offsets].astype(np.int64), self.items[kept])

    def last(self, max_length: int) -> Histories:
        """Returns the newest max_length items of each row."""
        from_end = np.repeat(self.offsets[1:], self.lengths) - np.arange(len(self.items))
        return self.keep(from_end <= max_length)

    def thinned(self, rng: np.random.Generator, low: float, high: float) -> Histories:
        """Draws a sub-history of each row: keep rate uniform in [low, high], at least one item."""
        draws = rng.random(len(self.items))
        kept = draws < np.repeat(rng.uniform(low, high, self.size), self.lengths)
        filled = np.flatnonzero(self.lengths)
        if len(filled):
            # The smallest draw of a row always stays, so that no history becomes empty.
            row_minimum = np.minimum.reduceat(draws, self.offsets[filled])
            kept |= draws == np.repeat(row_minimum, self.lengths[filled])
        return self.keep(kept)

    def prefixes(self, rng: np.random.Generator) -> Histories:
        """Draws a prefix of each row: its oldest items, one to all, every number as likely."""
        kept = np.minimum((rng.random(self.size) * self.lengths).astype(np.int64) + 1, self.lengths)
        place = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.lengths)
        return self.keep(place < np.repeat(kept, self.lengths))

    def padded(self) -> PaddedHistories:
        """Returns rows side by side, padded at the end with item 0 under mask 0."""
        width = int(self.lengths.max(initial=0))
        filled = np.arange(width) < self.lengths[:, None]
        items = np.zeros((self.size, width), dtype=np.int64)
        items[filled] = self.items
        return PaddedHistories(torch.from_numpy(items), torch.from_numpy(filled.astype(np.float32)))

    def batches(self, size: int) -> Iterator[Histories]:
        """Yields consecutive rows, size at a time."""
        for start in range(0, self.size, size):
            stop = min(start + size, self.size)
            first = self.offsets[start]
            last = self.offsets[stop]
            yield Histories(self.offsets[start : stop + 1] - first, self.items[first:last])

    def matrix(self, n_items: int) -> csr_matrix:
        """Returns float32 [n, n_items] with 1 where the row holds the item, indices sorted."""
        shape = (self.size, n_items)
        ones = np.ones(len(self.items), dtype=np.float32)
        matrix = csr_matrix((ones, self.items.astype(np.int32), self.offsets), shape=shape)
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix


def stacked(parts: Sequence[Histories]) -> Histories:
    """Returns the rows of all parts, one part after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories(offsets, np.concatenate([part.items for part in parts]))
