"""Finds candidates for a list: through an index, or by scoring every allowed item.

A search has three ways, and plan_search chooses the cheapest that can work:

OVER_FETCH  The index knows nothing of filters and excluded items: more items are fetched than are
            needed, and those not allowed are dropped. Queries of different users and filters share
            one call, and every kind of index can do it.
SELECT      The index searches among the allowed items only.
EXACT       Every allowed item is scored.

Over-fetching becomes dear where few items are allowed, and fails where the allowed ones lie far
from the query. Then the index selects, if it can and if many items are allowed; else all of them
are scored.
"""

import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from service.arrays import Bools, Floats, Ints, are_in, distinct, rows_of
from service.batching.joint_calls import Computation
from service.retrieval.costs import SEARCH_COSTS, SearchCosts
from service.retrieval.exact_index import ExactIndex
from service.retrieval.protocol import Index

_log = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """Items that may be listed.

    Attributes:
        items: Item indices, ascending, each once: int64 [m].
        degraded: True if the index failed, so that every allowed item was scored.
    """

    items: Ints
    degraded: bool


class SearchPlan(Enum):
    """The ways to search; see the module."""

    OVER_FETCH = "over-fetch"
    SELECT = "select"
    EXACT = "exact"


class ItemSearch(NamedTuple):
    """A search for the best allowed items, with the numbers that decide how it is done.

    Attributes:
        allowed: bool [n_items]; None allows every item.
        excluded: Item indices that are not allowed either, ascending, each once.
        needed: Candidates to find for each query.
        sufficient: Fewest candidates of a query that end the search.
        first_fetch: Items that the first over-fetching search fetches.
        fetch_limit: A search that would fetch as many items or more is too dear.
        selects: True if the index can search among the allowed items, and that pays.
        costs: The costs that these numbers follow from.
    """

    allowed: Bools | None
    excluded: Ints
    needed: int
    sufficient: int
    first_fetch: int
    fetch_limit: int
    selects: bool
    costs: SearchCosts

    @property
    def listable(self) -> Bools | None:
        """The allowed items without the excluded ones: bool [n_items]; None if allowed is None."""
        if self.allowed is None:
            return None
        listable = self.allowed.copy()
        listable[self.excluded] = False
        return listable


def make_search(
    index: Index, n: int, allowed: Bools | None, excluded: Ints, costs: SearchCosts = SEARCH_COSTS
) -> ItemSearch:
    """Prepares a search for the n best items that are allowed and not excluded.

    Args:
        index: The index over all items.
        n: Number of items that each query needs.
        allowed: bool [n_items]; None allows every item.
        excluded: Item indices, ascending, each once.
        costs: What the ways to search cost.
    """
    best = math.ceil(n * index.over_fetch)
    needed = best + costs.margin
    if allowed is None:
        available = index.n_items - len(excluded)
        fetch = needed + len(excluded)
        return ItemSearch(
            allowed=None,
            excluded=excluded,
            needed=needed,
            sufficient=min(n, available),
            first_fetch=fetch,
            fetch_limit=index.n_items,
            selects=False,
            costs=costs,
        )
    allowed_count = int(np.count_nonzero(allowed))
    available = allowed_count - int(allowed[excluded].sum())
    fetch = (needed + len(excluded)) * index.n_items // max(allowed_count, 1)
    limit = allowed_count // costs.over_fetched_item
    if limit <= fetch < allowed_count and index.over_fetch_pays(allowed, fetch):
        limit = allowed_count
    return ItemSearch(
        allowed=allowed,
        excluded=excluded,
        needed=needed,
        sufficient=min(best, available),
        first_fetch=fetch,
        fetch_limit=limit,
        selects=index.can_select and allowed_count > costs.selection_share * index.n_items,
        costs=costs,
    )


def plan_search(search: ItemSearch, fetch: int) -> SearchPlan:
    """Chooses the next way to search, after all that fetch fewer items found too few.

    Args:
        search: The search.
        fetch: Number of items that over-fetching would fetch.
    """
    if fetch < search.fetch_limit:
        return SearchPlan.OVER_FETCH
    return SearchPlan.SELECT if search.selects else SearchPlan.EXACT


def find_candidates(
    index: Index,
    matrix: Floats,
    queries: Floats,
    n: int,
    allowed: Bools | None,
    excluded: Ints,
    costs: SearchCosts = SEARCH_COSTS,
) -> Computation[Candidates]:
    """Finds items among which are, for each query, its n best that are allowed and not excluded.

    There are more of them than n: the index's scores may be approximate, so that only rescoring
    tells the best.

    Args:
        index: Searched unless scoring every allowed item is cheaper.
        matrix: [V | b], float32 [n_items, p + 1].
        queries: float32 [m, p].
        n: Number of items that each query needs.
        allowed: bool [n_items]; None allows every item.
        excluded: Item indices, ascending, each once.
        costs: What the ways to search cost.
    """
    search = make_search(index, n, allowed, excluded, costs)
    degraded = False
    try:
        items = yield from find_by_index(index, search, queries)
    except Exception as error:  # FAISS raises RuntimeError for faults of any kind
        _report(f"{type(error).__name__}: {error}")
        items = None
        degraded = True
    if items is None:
        items = find_exactly(search, matrix, queries, n)
    return Candidates(items, degraded)


def find_by_index(index: Index, search: ItemSearch, queries: Floats) -> Computation[Ints | None]:
    """Finds the candidates of queries [m, p] through the index: ascending item indices, each once.

    Returns:
        None if every allowed item should be scored instead.
    """
    fetch = search.first_fetch
    while (plan := plan_search(search, fetch)) is SearchPlan.OVER_FETCH:
        items = yield from over_fetch(index, search, queries, fetch)
        if items is not None:
            return items
        fetch *= search.costs.widening
    return select(index, search, queries) if plan is SearchPlan.SELECT else None


def over_fetch(
    index: Index, search: ItemSearch, queries: Floats, fetch: int
) -> Computation[Ints | None]:
    """Fetches so many items for each query and drops those not allowed; None if too few are left.

    Too few are left if the allowed items lie far from the query, or in parts that the index did
    not look into.
    """
    fetched = yield Lookup(index, queries, fetch)
    kept = [_allowed_of(row, search)[: search.needed] for row in fetched]
    return _candidates(search, kept)


def select(index: Index, search: ItemSearch, queries: Floats) -> Ints | None:
    """Has the index search among the allowed items only; None if it finds too few."""
    listable = search.listable
    if listable is None:
        return None
    selected = index.search_among(queries, search.needed, listable)
    return _candidates(search, [row[row >= 0] for row in selected])


def find_exactly(search: ItemSearch, matrix: Floats, queries: Floats, n: int) -> Ints:
    """Scores every allowed item: the best n of each query, and the margin, as ascending indices."""
    exact = ExactIndex(matrix)
    keep = n + search.costs.margin
    listable = search.listable
    if listable is None:
        best = exact.search(queries, keep + len(search.excluded))
        return np.setdiff1d(best, search.excluded)
    return distinct(*exact.search_among(queries, keep, listable))


@dataclass(frozen=True, slots=True)
class Lookup:
    """A SharedCall for the n best items of queries, float32 [m, p]; see Index.search."""

    index: Index
    queries: Floats
    n: int

    stage: ClassVar[int] = 2

    @property
    def depth(self) -> int:
        """Number of items fetched: a power of two, so that joint calls do not change the result."""
        return 1 << (self.n - 1).bit_length()

    @property
    def group(self) -> Hashable:
        """One search of the index."""
        return Lookup, id(self.index), self.depth

    def run_all(self, calls: Sequence["Lookup"]) -> Sequence[Ints]:
        """Runs the calls of a group as one; see SharedCall."""
        parts = [call.queries for call in calls]
        fetched = rows_of(self.index.search(np.concatenate(parts), self.depth), parts)
        return [rows[:, : call.n] for rows, call in zip(fetched, calls, strict=True)]


def _candidates(search: ItemSearch, kept: Sequence[Ints]) -> Ints | None:
    """Joins the items that were kept for each query; None if those of a query do not suffice."""
    if min(map(len, kept), default=search.sufficient) < search.sufficient:
        return None
    return distinct(*kept)


def _allowed_of(row: Ints, search: ItemSearch) -> Ints:
    """Drops what may not be listed from the items fetched for one query."""
    mask = row >= 0
    if len(search.excluded):
        mask &= ~are_in(row, search.excluded)
    if search.allowed is not None:
        mask &= search.allowed[row]
    return row[mask]


@lru_cache(maxsize=64)
def _report(fault: str) -> None:
    """Logs each fault once: a broken index fails for every request."""
    _log.error("the index failed, every item is scored instead: %s", fault)
