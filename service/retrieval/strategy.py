"""Which items could be in the list: candidates from an index, or from every allowed item.

At first filters and excluded items do not reach the index: more is fetched, and what is not wanted
is dropped. So queries of different users and filters can share a call, and every kind of index
serves them. Where that would take longer than to score all that is allowed, or what is allowed lies
elsewhere than the query, the index is asked for that alone, if it can be and that is much; else all
of it is scored.
"""

import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from service.arrays import Bools, Floats, Ints, are_in, distinct, rows_of
from service.batching.joint_calls import Computation
from service.retrieval.exact_index import ExactIndex
from service.retrieval.protocol import Index

_log = logging.getLogger(__name__)


MARGIN = 16
"""Candidates beyond what is needed: the index's rounding may differ from the rescoring's at the cut."""


WIDENING = 4
"""How many times as many are fetched, whenever too few of what was fetched were wanted."""


DEAR = 10
"""A candidate that may be dropped again costs as much as so many that are known to be allowed."""


MANY = 1 / 16
"""Above this share of all items, their codes are quicker to read than their vectors are to gather."""


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

    They are more than that: the index's scores may be approximate, so that only rescoring tells the
    best.

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
    if (
        allowed is not None
        and worthwhile <= fetch < allowed_count
        and index.comes_by(allowed, fetch)
    ):
        worthwhile = allowed_count  # so many will do
    degraded = False
    try:
        while fetch < worthwhile:
            found = yield Lookup(index, queries, fetch)
            kept = [_wanted(row, allowed, excluded)[:needed] for row in found]
            if min(map(len, kept), default=available) >= min(enough, available):
                return Candidates(distinct(*kept), degraded)
            fetch *= (
                WIDENING  # what is allowed lies elsewhere, or in cells that were not looked into
            )
        if allowed is not None and index.selects and allowed_count > MANY * len(matrix):
            picked = index.search_among(queries, needed, _without(allowed, excluded))
            kept = [row[row >= 0] for row in picked]
            if min(map(len, kept), default=available) >= min(enough, available):
                return Candidates(distinct(*kept), degraded)
    except (
        Exception
    ) as error:  # FAISS raises RuntimeError for faults of any kind: search exactly instead
        _report(f"{type(error).__name__}: {error}")
        degraded = True
    return Candidates(_exact(matrix, queries, n, allowed, excluded), degraded)


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


def _without(allowed: Bools, excluded: Ints) -> Bools:
    wanted = allowed.copy()
    wanted[excluded] = False
    return wanted


def _exact(matrix: Floats, queries: Floats, n: int, allowed: Bools | None, excluded: Ints) -> Ints:
    """The best n + MARGIN of each query among the items that are allowed and not excluded."""
    exact, keep = ExactIndex(matrix), n + MARGIN
    if allowed is None:
        return np.setdiff1d(exact.search(queries, keep + len(excluded)), excluded)
    return distinct(*exact.search_among(queries, keep, _without(allowed, excluded)))
