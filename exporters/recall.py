"""Measures which share of the exact best items an index finds, with the code that will serve it.

Steering moves queries off the data's distribution, and filters ask for items far from the query:
an index can lose recall there although plain queries are answered well.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.batching.joint_calls import run_jointly
from service.bundle.replay import RECALL_DEPTH, recall, shares_of_best
from service.retrieval.exact_index import ExactIndex
from service.retrieval.faiss_index import FaissIndex
from service.retrieval.protocol import Index
from service.retrieval.strategy import find_by_index, make_search

DEPTHS = (20, RECALL_DEPTH)
"""Lengths of lists whose items must be found."""

FILTER_SHARES = (0.5, 0.05, 0.005)
"""Shares of the items that the measured filters allow: for each, one filter allows items at random
and one allows items that lie near each other."""

FILTERED_QUERIES = 64
"""Queries of each kind, plain and steered, that are measured with filters. More take longer: with a
filter, searches are deep."""

_ITEMS_AT_ONCE = 2**16
"""Items assigned to patches at a time. More take more memory."""

_PATCHES = 200
"""Patches of near items that filters are made of. More make filters more scattered."""

_NOTHING: Ints = np.empty(0, np.int64)


class Recalls(NamedTuple):
    """Shares of the exact best items that an index finds, rounded down to 4 digits."""

    plain: float
    """Share of the best 100."""
    steered: float
    """Share of the best 100."""
    filtered: float
    """The lowest share of the best 20 and of the best 100 under any filter."""
    short: float
    """The lower of plain and steered, for the best 20."""


class Truth:
    """The exact best items of queries, by which indexes are judged.

    Args:
        items: [V | b], float32 [n_items, p + 1], memory-mapped or not.
        plain: float32 [queries, p].
        steered: float32 [queries, p].
        seed: Seed of the filters.
    """

    def __init__(self, items: Floats, plain: Floats, steered: Floats, seed: int = 0) -> None:
        self._items = items
        self._sets = [_QuerySet.find(items, queries) for queries in (plain, steered)]
        filtered = np.vstack([plain[:FILTERED_QUERIES], steered[:FILTERED_QUERIES]])
        self._filters = [
            _FilteredQueries.find(items, filtered, allowed)
            for allowed in _filters(items, np.random.default_rng(seed))
            if allowed.any()
        ]

    def recalls(self, index: Any, over_fetch: float) -> Recalls:
        """Measures a faiss.Index with an over-fetch."""
        served = FaissIndex(index, over_fetch)
        plain, steered = (one.share(served, self._items, RECALL_DEPTH) for one in self._sets)
        filtered = [
            one.share(served, self._items, depth) for one in self._filters for depth in DEPTHS
        ]
        return Recalls(
            plain=plain,
            steered=steered,
            filtered=min(filtered, default=1.0),
            short=min(one.share(served, self._items, DEPTHS[0]) for one in self._sets),
        )


class _QuerySet(NamedTuple):
    """Queries and their exact best items: float32 [m, p] and int64 [m, at most 100]."""

    queries: Floats
    best: Ints

    @classmethod
    def find(cls, items: Floats, queries: Floats) -> "_QuerySet":
        """Finds the exact best items."""
        return cls(queries, ExactIndex(items).search(queries, RECALL_DEPTH))

    def share(self, index: FaissIndex, items: Floats, depth: int) -> float:
        """Measures the share of the best items of a depth that the index finds."""
        best = self.best[:, :depth]
        candidates = index.search(self.queries, int(np.ceil(best.shape[1] * index.over_fetch)))
        return _rounded(shares_of_best(items, self.queries, candidates, best))


class _FilteredQueries(NamedTuple):
    """Queries with a filter, and the exact best of the items that it allows."""

    queries: Floats
    allowed: Bools
    best: Ints

    @classmethod
    def find(cls, items: Floats, queries: Floats, allowed: Bools) -> "_FilteredQueries":
        """Finds the exact best items."""
        best = ExactIndex(items).search_among(queries, RECALL_DEPTH, allowed)
        return cls(queries, allowed, best)

    def share(self, index: FaissIndex, items: Floats, depth: int) -> float:
        """Measures the share of the best items of a depth that a search like the service's finds.

        Where the service scores every allowed item, nothing is lost.
        """
        search = make_search(index, depth, self.allowed, _NOTHING)
        results = run_jointly([find_by_index(index, search, query[None]) for query in self.queries])
        best = self.best[:, :depth]
        shares = []
        for query, exact, result in zip(self.queries, best, results, strict=True):
            if isinstance(result, Exception):
                raise result
            if result is None:
                shares.append(1.0)
            else:
                shares += shares_of_best(items, query[None], [result], exact[None])
        return _rounded(shares)


def rounded_recall(index: Index, items: Floats, queries: Floats) -> float:
    """Measures the share of the exact best 100 items that an index finds, rounded down.

    Args:
        index: The index, as it is served.
        items: [V | b], float32 [n_items, p + 1].
        queries: float32 [m, p].
    """
    return _rounded([recall(index, items, queries)])


def _filters(items: Floats, rng: np.random.Generator) -> list[Bools]:
    """Draws the filters: bool [n_items] each."""
    filters = []
    for share in FILTER_SHARES:
        filters.append(rng.random(len(items)) < share)
        filters.append(_region(items, share, rng))
    return filters


def _region(items: Floats, share: float, rng: np.random.Generator) -> Bools:
    """Draws about a share of the items, in patches of near items as in a genre: bool [n_items]."""
    seeds = items[np.sort(rng.choice(len(items), min(_PATCHES, len(items)), replace=False))]
    blocks = range(0, len(items), _ITEMS_AT_ONCE)
    patches = np.concatenate(
        [(items[start : start + _ITEMS_AT_ONCE] @ seeds.T).argmax(axis=1) for start in blocks]
    )
    order = rng.permutation(len(seeds))
    sizes = np.bincount(patches, minlength=len(seeds))[order].cumsum()
    return np.isin(patches, order[: int(np.searchsorted(sizes, share * len(items))) + 1])


def _rounded(shares: Sequence[float]) -> float:
    """Rounds the mean down to 4 digits, so that a manifest never promises more than is found."""
    return float(np.floor(np.mean(shares) * 10_000) / 10_000)
