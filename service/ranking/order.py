"""From candidates to lists: exact scores, order, reasons, and what steering cost. Pure.

Candidates are rescored here by one dot product a row, whose result does not depend on which other
candidates there are: a cached and a fresh answer, a batch and a single request give the same bits.
"""

from typing import NamedTuple

import numpy as np

from service.arrays import Floats, Ints


class Ranking(NamedTuple):
    """Items in order, int64 [n], and their scores, float32 [n]."""

    items: Ints
    scores: Floats


def score(items: Floats, rows: Ints, queries: Floats) -> Floats:
    """Q . V_i + b_i for the given rows of [V | b]: [n_items, p + 1], [m], [..., p] -> [..., m]."""
    extended = np.ones((*queries.shape[:-1], 1, queries.shape[-1] + 1), np.float32)
    extended[..., 0, :-1] = queries
    return np.asarray(np.vecdot(items.take(rows, axis=0), extended))


def rank(candidates: Ints, scores: Floats, n: int) -> Ranking:
    """The n best candidates, ties by item index."""
    order = np.lexsort((candidates, -scores))[:n]
    return Ranking(candidates[order], scores[order])
