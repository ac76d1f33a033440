"""Which items could be in the list: candidates from an index, or from every allowed item.

At first filters and excluded items do not reach the index: more is fetched, and what is not wanted is
dropped. So queries of different users and filters can share a call, and every kind of index serves them.
Where that would take longer than to score all that is allowed, or what is allowed lies elsewhere than the
query, all of it is scored: by the index's codes, if it can pick them out and they are many, else by the
vectors.
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

from service.arrays import Bools, Floats, Ints, are_in, distinct, rows_of
from service.together import Computation

_log = logging.getLogger(__name__)

MARGIN = 16
"""Candidates beyond what is needed: the index's rounding may differ from the rescoring's at the cut."""
WIDENING = 4
"""How many times as many are fetched, whenever too few of what was fetched were wanted."""
CHOSEN_DEPTH = 128
"""Up to so many candidates, times the over-fetch, the number of cells stored with an index is right: it was
chosen by the best 100, and a search's depth is a power of two."""
DEAR = 10
"""A candidate that may be dropped again costs as much as so many that are known to be allowed."""
MANY = 1 / 16
"""Above this share of all items, their codes are quicker to read than their vectors are to gather."""
SCORES_AT_ONCE = 2**24
"""Scores that an exact pass holds at a time: 64 MiB."""
ROWS_AT_ONCE = 512
"""Rows that an exact pass gathers at a time: they are still in the cache when they are multiplied."""
FEW_QUERIES = 4
"""Up to so many are quicker multiplied one by one."""


class Index(Protocol):
    """Finds the rows with the largest inner products, or nearly so."""

    n_items: int
    over_fetch: float
    """So many times as many candidates as are needed hold those: its own scores are approximate."""
    selects: bool
    """Whether it can search among some items only."""

    def search(self, queries: Floats, n: int) -> Ints:
        """Row numbers for [m, p] queries, best first: int64 [m, n], -1 where there are no more."""

    def search_among(self, queries: Floats, n: int, wanted: Bools) -> Ints:
        """The same among the wanted items, bool [n_items], all of which are scored."""


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
        # A graph has no list to read, and FAISS's fast scan without cells takes no selectors.
        self.selects = isinstance(self._index, (faiss.IndexIVF, faiss.IndexScalarQuantizer))
        self._parameters = lru_cache(maxsize=64)(self._made_parameters)  # few depths are asked for

    def search(self, queries: Floats, n: int) -> Ints:
        """See Index."""
        return self._search(queries, n, self._parameters(n))

    def search_among(self, queries: Floats, n: int, wanted: Bools) -> Ints:
        """See Index; in whichever cells they lie."""
        selector = faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
        if isinstance(self._index, faiss.IndexIVF):
            return self._search(queries, n, faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist))
        return self._search(queries, n, faiss.SearchParameters(sel=selector))

    def _search(self, queries: Floats, n: int, parameters: Any) -> Ints:
        n, width = min(n, self.n_items), queries.shape[1]
        if width < self.width:  # the index holds [V | b], or zeros; a one does no harm to those
            padded = np.zeros((len(queries), self.width), np.float32)
            padded[:, :width], padded[:, width] = queries, 1.0
            queries = padded
        _, items = self._index.search(np.ascontiguousarray(queries), n, params=parameters)
        return np.asarray(items, np.int64)

    def _made_parameters(self, n: int) -> Any:
        """For more candidates than it was chosen for, an index looks as many times as far.

        A filter may keep what lies far away.
        """
        factor = n / (CHOSEN_DEPTH * self.over_fetch)
        if factor <= 1:
            return None
        if isinstance(self._index, faiss.IndexIVF):
            probes = int(self._index.nprobe * factor) + 1
            return faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist))
        if isinstance(self._index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(efSearch=int(self._index.hnsw.efSearch * factor) + 1)
        return None


class ExactIndex:
    """Scores rows of [V | b] by matrix products in blocks: nothing is missed."""

    over_fetch = 1.0
    selects = True

    def __init__(self, matrix: Floats) -> None:
        self._matrix = np.asarray(matrix)  # the rows of a memory map are slower to take
        self.n_items = len(matrix)

    def search(self, queries: Floats, n: int) -> Ints:
        """See Index."""
        return self._best(queries, n, None)

    def search_among(self, queries: Floats, n: int, wanted: Bools) -> Ints:
        """See Index."""
        return self._best(queries, n, np.flatnonzero(wanted))

    def _best(self, queries: Floats, n: int, rows: Ints | None) -> Ints:
        extended = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        count = self.n_items if rows is None else len(rows)
        size = max(SCORES_AT_ONCE // max(len(queries), 1), n)
        scores, found = [], []
        for start in range(0, count, size):
            part = slice(start, start + size)
            products = extended @ self._matrix[part].T if rows is None else self._scores(extended, rows[part])
            kept = _largest(products, n)
            scores.append(np.take_along_axis(products, kept, axis=1))
            found.append(kept + start if rows is None else rows[part][kept])
        if not found:
            return np.empty((len(queries), 0), np.int64)
        every = np.hstack(scores)
        kept = np.argsort(-every, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(np.hstack(found), kept, axis=1)

    def _scores(self, extended: Floats, rows: Ints) -> Floats:
        """Products of queries [m, p + 1] with some rows: [m, rows]."""
        scores = np.empty((len(extended), len(rows)), np.float32)
        gathered = np.empty((min(ROWS_AT_ONCE, len(rows)), self._matrix.shape[1]), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            # Without "clip" numpy would gather them elsewhere first.
            block = self._matrix.take(rows[part], axis=0, out=gathered[: len(rows[part])], mode="clip")
            if len(extended) <= FEW_QUERIES:
                np.vecdot(block, extended[:, None], out=scores[:, part])
            else:
                np.matmul(extended, block.T, out=scores[:, part])
        return scores


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
    enough = n if allowed is None else needed - MARGIN
    worthwhile = allowed_count if allowed is None else allowed_count // DEAR
    fetch = (needed + len(excluded)) * len(matrix) // max(allowed_count, 1)
    try:
        while fetch < worthwhile:
            found = yield Lookup(index, queries, fetch)
            kept = [_wanted(row, allowed, excluded)[:needed] for row in found]
            if min(map(len, kept), default=available) >= min(enough, available):
                items = distinct(*kept)
                return Candidates(items, degraded=False)
            fetch *= WIDENING  # what is allowed lies elsewhere, or in cells that were not looked into
        picks = allowed is not None and index.selects and allowed_count > MANY * len(matrix)
        scorer = index if picks else ExactIndex(matrix)
        return Candidates(_best_of_all(scorer, queries, n, allowed, excluded), degraded=False)
    except Exception as error:  # FAISS raises RuntimeError for faults of any kind: search exactly instead
        _report(f"{type(error).__name__}: {error}")
        return Candidates(_best_of_all(ExactIndex(matrix), queries, n, allowed, excluded), degraded=True)


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


def _best_of_all(index: Index, queries: Floats, n: int, allowed: Bools | None, excluded: Ints) -> Ints:
    """The best of each query among all items that are allowed and not excluded, each of which is scored."""
    keep = math.ceil(n * index.over_fetch) + MARGIN
    if allowed is None:
        return np.setdiff1d(index.search(queries, keep + len(excluded)), excluded)
    wanted = allowed.copy()
    wanted[excluded] = False
    found = distinct(index.search_among(queries, keep, wanted).ravel())
    return found[found >= 0]
