"""Which items could be in the list: candidates from an index, or from every allowed item.

Filters and excluded items never reach the index: more is fetched, and what is not wanted is dropped. So
queries of different users and filters can share a call, and every kind of index serves them (FAISS's fast
scan takes no selectors). Where fewer items are allowed than would have to be fetched, an exact pass over them
is both faster and right.
"""

import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import faiss
import numpy as np

from service.arrays import Bools, Floats, Ints, are_in, rows_of
from service.together import Computation

_log = logging.getLogger(__name__)

MARGIN = 16
"""Candidates beyond what is needed: the index's rounding may differ from the rescoring's at the cut."""
WIDENING = 4
"""How many times as many are fetched, whenever too few of what was fetched were wanted."""
CHOSEN_DEPTH = 128
"""Up to so many candidates, times the over-fetch, the number of cells stored with an index is right: it was
chosen by the best 100, and a search's depth is a power of two."""
SCORES_AT_ONCE = 2**24
"""Scores that an exact pass holds at a time: 64 MiB."""


class Index(Protocol):
    """Finds the rows with the largest inner products, or nearly so."""

    n_items: int
    over_fetch: float
    """So many times as many candidates as are needed hold those: its own scores are approximate."""

    def search(self, queries: Floats, n: int) -> Ints:
        """Row numbers for [m, p] queries, best first: int64 [m, n], -1 where there are no more."""


class FaissIndex:
    """A FAISS index of any kind over V, or over [V | b], zeros at the rows' ends allowed; memory-mapped.

    Args:
        path: The file.
        over_fetch: See Index.

    Raises:
        OSError, RuntimeError: the file is no index.
    """

    def __init__(self, path: Path, over_fetch: float = 1.0) -> None:
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        self.n_items: int = self._index.ntotal
        self.width: int = self._index.d
        self.over_fetch = max(over_fetch, 1.0)
        self._parameters = lru_cache(maxsize=64)(self._made_parameters)  # few depths are asked for

    def search(self, queries: Floats, n: int) -> Ints:
        """See Index."""
        n, width = min(n, self.n_items), queries.shape[1]
        if width < self.width:  # the index holds [V | b], or zeros; a one does no harm to those
            padded = np.zeros((len(queries), self.width), np.float32)
            padded[:, :width], padded[:, width] = queries, 1.0
            queries = padded
        _, items = self._index.search(np.ascontiguousarray(queries), n, params=self._parameters(n))
        return np.asarray(items, np.int64)

    def _made_parameters(self, n: int) -> Any:
        """For more candidates than it was chosen for, an IVF index looks into as many times as many cells.

        A filter may keep what lies far away.
        """
        usual = CHOSEN_DEPTH * self.over_fetch
        if not isinstance(self._index, faiss.IndexIVF) or n <= usual:
            return None
        probes = int(self._index.nprobe * n / usual) + 1
        return faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist))


class ExactIndex:
    """Scores every row of [V | b], by matrix products in blocks: nothing is copied, nothing is missed."""

    over_fetch = 1.0

    def __init__(self, matrix: Floats) -> None:
        self._matrix = np.asarray(matrix)  # the rows of a memory map are slower to take
        self.n_items = len(matrix)

    def search(self, queries: Floats, n: int) -> Ints:
        """See Index."""
        return self._best(queries, n, None)

    def search_among(self, queries: Floats, n: int, rows: Ints) -> Ints:
        """The same among some rows, in ascending order."""
        return rows if len(rows) <= n else self._best(queries, n, rows)

    def _best(self, queries: Floats, n: int, rows: Ints | None) -> Ints:
        extended = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        count = self.n_items if rows is None else len(rows)
        size = max(SCORES_AT_ONCE // max(len(queries), self._matrix.shape[1] * (rows is not None)), n)
        scores, found = [], []
        for start in range(0, count, size):
            part = slice(start, start + size)
            block = self._matrix[part] if rows is None else self._matrix.take(rows[part], axis=0)
            products = extended @ block.T
            kept = _largest(products, n)
            scores.append(np.take_along_axis(products, kept, axis=1))
            found.append(kept + start if rows is None else rows[part][kept])
        every = np.hstack(scores)
        kept = np.argsort(-every, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(np.hstack(found), kept, axis=1)


def _largest(scores: Floats, n: int) -> Ints:
    """Where the n largest of each row are, in no order."""
    n = min(n, scores.shape[1])
    return np.argpartition(scores, scores.shape[1] - n, axis=1)[:, -n:]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A Need: the n best rows of queries, float32 [m, p]; see Index.search and together.py."""

    index: Index
    queries: Floats
    n: int

    stage: ClassVar[int] = 2

    @property
    def depth(self) -> int:
        """How many are fetched: a power of two, so that company does not change what is found."""
        return 1 << (self.n - 1).bit_length()

    @property
    def kind(self) -> Hashable:
        """One search of the index."""
        return Lookup, id(self.index), self.depth

    def meet(self, needs: Sequence["Lookup"]) -> Sequence[Ints]:
        """See Need."""
        parts = [need.queries for need in needs]
        found = rows_of(self.index.search(np.concatenate(parts), self.depth), parts)
        return [rows[:, : need.n] for rows, need in zip(found, needs, strict=True)]


class Candidates(NamedTuple):
    """Sorted item indices, int64 [m], and whether the index failed, so that all items were scored."""

    items: Ints
    degraded: bool


def find_candidates(
    index: Index, matrix: Floats, queries: Floats, n: int, allowed: Bools | None, excluded: Ints
) -> Computation[Candidates]:
    """Items that hold, for each query, its n best that are allowed and not excluded.

    They are more than that: the index's scores may be approximate, so that only rescoring tells the best.

    Args:
        index: Searched where that is the better way.
        matrix: [V | b], float32 [n_items, p + 1].
        queries: float32 [m, p].
        n: How many items each query needs.
        allowed: bool [n_items], or None for all.
        excluded: Item indices that are not wanted, ascending, each once.
    """
    allowed_count = len(matrix) if allowed is None else int(np.count_nonzero(allowed))
    available = allowed_count - (len(excluded) if allowed is None else int(allowed[excluded].sum()))
    needed = math.ceil(n * index.over_fetch) + MARGIN
    fetch = (needed + len(excluded)) * len(matrix) // max(allowed_count, 1)
    while fetch < allowed_count:
        try:
            found = yield Lookup(index, queries, fetch)
        except Exception as error:  # FAISS raises RuntimeError for faults of any kind: search exactly instead
            _report(f"{type(error).__name__}: {error}")
            return Candidates(_exact(matrix, queries, n, allowed, excluded), degraded=True)
        kept = [_wanted(row, allowed, excluded)[:needed] for row in found]
        fewest = min(map(len, kept), default=available)
        if fewest >= min(needed, available) or (allowed is None and fewest >= min(n, available)):
            items = np.sort(kept[0]) if len(kept) == 1 else np.unique(np.concatenate(kept))
            return Candidates(items, degraded=False)
        fetch *= WIDENING  # the filter's items lie away from the query, or in cells that were not looked into
    return Candidates(_exact(matrix, queries, n, allowed, excluded), degraded=False)


def _wanted(found: Ints, allowed: Bools | None, excluded: Ints) -> Ints:
    """Of the items found for a query, those that may be listed."""
    wanted = found >= 0
    if len(excluded):
        wanted &= ~are_in(found, excluded)
    if allowed is not None:
        wanted &= allowed[found]
    return found[wanted]


@lru_cache(maxsize=64)
def _report(fault: str) -> None:
    """Logs each fault once: a broken index fails for every request."""
    _log.error("the index failed, every item is scored instead: %s", fault)


def _exact(matrix: Floats, queries: Floats, n: int, allowed: Bools | None, excluded: Ints) -> Ints:
    """The best n + MARGIN of each query among the allowed items."""
    exact, keep = ExactIndex(matrix), n + MARGIN
    if allowed is None and keep + len(excluded) < len(matrix):
        found = exact.search(queries, keep + len(excluded))
        return np.setdiff1d(found, excluded)
    wanted = np.ones(len(matrix), bool) if allowed is None else allowed.copy()
    wanted[excluded] = False
    return np.unique(exact.search_among(queries, keep, np.flatnonzero(wanted)))
