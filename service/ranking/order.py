"""Scores candidates exactly and orders them. Pure.

Each candidate is scored by one dot product, whose result does not depend on the other candidates: a
cached and a fresh answer, a batch and a single request give the same bits.
"""

from typing import NamedTuple

import numpy as np

from service.arrays import Floats, Ints


class Ranking(NamedTuple):
    """Items in order, int64 [n], and their scores, float32 [n]."""

    items: Ints
    scores: Floats


def score(items: Floats, rows: Ints, queries: Floats) -> Floats:
    """Computes q . V_i + b_i for rows of [V | b]: [n_items, p + 1], [m], [..., p] -> [..., m]."""
    extended = np.ones((*queries.shape[:-1], 1, queries.shape[-1] + 1), np.float32)
    extended[..., 0, :-1] = queries
    return np.asarray(np.vecdot(items.take(rows, axis=0), extended))


def rank(candidates: Ints, scores: Floats, n: int) -> Ranking:
    """Returns the n best candidates in order; equal scores are ordered by item index."""
    order = np.lexsort((candidates, -scores))[:n]
    return Ranking(candidates[order], scores[order])
