"""Which items could be in the list: candidates from the FAISS index, or from every allowed item.

FAISS takes one selector per call. A filter goes in as a bitmap; a user's own excluded items are dropped from
an over-fetched result instead, so that queries of different users can share a call. Where few items are
allowed, or many are excluded, an exact pass over the allowed items is both faster and right.
"""

import logging
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import faiss
import numpy as np

from service.arrays import Bools, Floats, Ints

_log = logging.getLogger(__name__)

SELECTIVE_SHARE = 0.1
"""A filter that allows less than this share of the items is served by an exact pass."""
MARGIN = 16
"""Candidates beyond what is needed: the index's rounding may differ from the rescoring's at the cut."""
MOST_FETCHED = 4_096
"""Over-fetching further than this costs more than an exact pass over a catalogue of usual size."""


class Index(Protocol):
    """Finds the rows with the largest inner products."""

    n_items: int

    def search(self, queries: Floats, n: int, allowed: Bools | None) -> Ints:
        """Row numbers for [m, p] queries: int64 [m, n], -1 where there are no more."""


class FaissIndex:
    """A FAISS index of any kind over V, or over [V | b].

    Raises:
        OSError, RuntimeError: the file is no index.
    """

    def __init__(self, path: Path) -> None:
        self._index = faiss.read_index(str(path))
        self.n_items: int = self._index.ntotal
        self.width: int = self._index.d

    def search(self, queries: Floats, n: int, allowed: Bools | None) -> Ints:
        """See Index."""
        if queries.shape[1] < self.width:  # the index holds [V | b]
            queries = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        parameters = None if allowed is None else self._selecting(allowed)
        _, items = self._index.search(np.ascontiguousarray(queries), min(n, self.n_items), params=parameters)
        return np.asarray(items, np.int64)

    def _selecting(self, allowed: Bools) -> faiss.SearchParameters:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if isinstance(self._index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(sel=selector, efSearch=self._index.hnsw.efSearch)
        if isinstance(self._index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
        return faiss.SearchParameters(sel=selector)


class Candidates(NamedTuple):
    """Sorted item indices, int64 [m], and whether the index failed, so that all items were scored."""

    items: Ints
    degraded: bool


def find_candidates(
    index: Index, matrix: Floats, queries: Floats, n: int, allowed: Bools | None, excluded: Ints
) -> Candidates:
    """The union over the queries of their n best items that are allowed and not excluded.

    Args:
        index: Searched where that is the better way.
        matrix: [V | b], float32 [n_items, p + 1].
        queries: float32 [m, p].
        n: How many items each query needs.
        allowed: bool [n_items], or None for all.
        excluded: Item indices that are not wanted, without repeats.
    """
    allowed_count = len(matrix) if allowed is None else int(np.count_nonzero(allowed))
    fetch = n + len(excluded) + MARGIN
    selective = allowed_count < SELECTIVE_SHARE * len(matrix)
    if selective or fetch >= min(allowed_count, MOST_FETCHED):
        return Candidates(_exact(matrix, queries, n, allowed, excluded), degraded=False)
    try:
        found = index.search(queries, fetch, allowed)
    except Exception as error:  # FAISS raises RuntimeError for faults of any kind: search exactly instead
        _report(f"{type(error).__name__}: {error}")
        return Candidates(_exact(matrix, queries, n, allowed, excluded), degraded=True)
    wanted = (found >= 0) & ~np.isin(found, excluded)
    if allowed is not None:
        wanted &= allowed[found]
    available = allowed_count - (len(excluded) if allowed is None else np.count_nonzero(allowed[excluded]))
    if (wanted.sum(axis=1) < min(n, available)).any():  # an IVF index sees only the lists that it probes
        return Candidates(_exact(matrix, queries, n, allowed, excluded), degraded=False)
    return Candidates(np.unique(found[wanted]), degraded=False)


@lru_cache(maxsize=64)
def _report(fault: str) -> None:
    """Logs each fault once: a broken index fails for every request."""
    _log.error("the index failed, every item is scored instead: %s", fault)


def _exact(matrix: Floats, queries: Floats, n: int, allowed: Bools | None, excluded: Ints) -> Ints:
    """Scores every allowed item and keeps the best n + MARGIN of each query."""
    wanted = np.ones(len(matrix), bool) if allowed is None else allowed.copy()
    wanted[excluded] = False
    rows = np.flatnonzero(wanted)
    keep = n + MARGIN
    if len(rows) <= keep:
        return rows
    extended = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
    scores = (matrix if len(rows) == len(matrix) else matrix[rows]) @ extended.T
    best = np.argpartition(scores, len(rows) - keep, axis=0)[-keep:]
    return rows[np.unique(best)]
