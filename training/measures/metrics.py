"""Computes ranking measures as formulas over top-n lists.

A list is a row of item indices, best first; -1 fills a list that has no more items. Every function
returns one figure per list, so that callers can pair, average and put error bars on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.arrays import Bools

Lists = NDArray[np.int64]
Figures = NDArray[np.float64]


def discounts(n: int) -> Figures:
    """Returns 1 / log2(1 + rank) for the ranks 1..n, [n]."""
    return 1.0 / np.log2(np.arange(2, n + 2))


def hits(lists: Lists, targets: csr_matrix) -> Bools:
    """Flags places that hold a target: lists [users, n], targets [users, n_items] -> [users, n]."""
    width = targets.shape[1]
    rows = np.repeat(np.arange(targets.shape[0], dtype=np.int64), np.diff(targets.indptr))
    wanted = rows * width + targets.indices
    places = np.arange(len(lists), dtype=np.int64)[:, None] * width + lists
    return np.isin(places, wanted) & (lists >= 0)


def recall(lists: Lists, targets: csr_matrix) -> Figures:
    """Returns the share of min(n, targets) that the list holds, [users]; NaN without targets."""
    n = lists.shape[1]
    possible = np.minimum(np.diff(targets.indptr), n)
    return _ratio(hits(lists, targets).sum(axis=1), possible)


def ndcg(lists: Lists, targets: csr_matrix) -> Figures:
    """Returns the DCG of binary relevance over the best possible, [users]; NaN without targets."""
    weights = discounts(lists.shape[1])
    ideal = np.concatenate([[0.0], np.cumsum(weights)])
    possible = np.minimum(np.diff(targets.indptr), lists.shape[1])
    return _ratio(hits(lists, targets) @ weights, ideal[possible])


def coverage(lists: Lists, n_items: int) -> float:
    """Returns the share of the catalogue that occurs in any list."""
    return len(np.unique(lists[lists >= 0])) / n_items


def exposure_share(lists: Lists, members: Bools) -> Figures:
    """Returns the share of the discounted places that members [n_items] hold, [users].

    0 for an empty list.
    """
    return _share(lists, members, discounts(lists.shape[1]))


def plain_share(lists: Lists, members: Bools) -> Figures:
    """Returns the share of the places that members [n_items] hold, [users]; 0 for an empty list."""
    return _share(lists, members, np.ones(lists.shape[1]))


def overlap(left: Lists, right: Lists) -> Figures:
    """Returns the share of the left list's items that the right list holds too, [users]."""
    width = int(max(left.max(initial=0), right.max(initial=0))) + 1
    rows = np.arange(len(left), dtype=np.int64)[:, None] * width
    shared = np.isin(rows + left, (rows + right)[right >= 0]) & (left >= 0)
    return _ratio(shared.sum(axis=1), (left >= 0).sum(axis=1))


def _share(lists: Lists, members: Bools, weights: Figures) -> Figures:
    filled = lists >= 0
    held = (members[lists] & filled) @ weights
    total = filled @ weights
    return np.divide(held, total, out=np.zeros_like(total), where=total > 0)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Figures:
    bottom = denominator.astype(np.float64)
    ratio: Figures = np.full(len(bottom), np.nan)
    return np.divide(numerator.astype(np.float64), bottom, out=ratio, where=bottom > 0)
