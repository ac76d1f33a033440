"""An index that scores every item: exact, and the quickest for small catalogues."""

import numpy as np

from service.arrays import Bools, Floats, Ints

SCORES_AT_ONCE = 2**24
"""Scores held at a time: 64 MiB. More take memory, fewer make more and smaller matrix products."""


ROWS_AT_ONCE = 512
"""Item rows gathered at a time. More of them leave the processor's cache before they are
multiplied: docs/results/retrieval.md."""


FEW_QUERIES = 4
"""Up to this number of queries, products one query at a time are quicker than a matrix product."""


class ExactIndex:
    """Scores rows of [V | b] by matrix products in blocks; see Index.

    Args:
        matrix: [V | b], float32 [n_items, p + 1].
    """

    over_fetch = 1.0
    can_select = True

    def __init__(self, matrix: Floats) -> None:
        self._matrix = np.asarray(matrix)  # rows of a np.memmap are slow to take
        self.n_items = len(matrix)

    def search(self, queries: Floats, n: int) -> Ints:
        """Finds the n best items of each query; see Index."""
        return self._best(queries, n, None)

    def search_among(self, queries: Floats, n: int, allowed: Bools) -> Ints:
        """Finds the n best allowed items of each query; see Index."""
        return self._best(queries, n, np.flatnonzero(allowed))

    def over_fetch_pays(self, allowed: Bools, n: int) -> bool:
        """Returns False: scoring the allowed items is always cheaper; see Index."""
        del allowed, n
        return False

    def _best(self, queries: Floats, n: int, rows: Ints | None) -> Ints:
        """Finds the n best of some rows, or of all, block by block: int64 [m, n]."""
        extended = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        count = self.n_items if rows is None else len(rows)
        size = max(SCORES_AT_ONCE // max(len(queries), 1), n)
        block_scores = []
        block_items = []
        for start in range(0, count, size):
            block = slice(start, start + size)
            if rows is None:
                products = extended @ self._matrix[block].T
            else:
                products = self._products(extended, rows[block])
            kept = _largest(products, n)
            block_scores.append(np.take_along_axis(products, kept, axis=1))
            block_items.append(kept + start if rows is None else rows[block][kept])
        if not block_items:
            return np.empty((len(queries), 0), np.int64)
        scores = np.hstack(block_scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        return np.take_along_axis(np.hstack(block_items), order, axis=1)

    def _products(self, extended: Floats, rows: Ints) -> Floats:
        """Multiplies queries [m, p + 1] with some rows of the matrix: float32 [m, rows]."""
        products = np.empty((len(extended), len(rows)), np.float32)
        buffer = np.empty((min(ROWS_AT_ONCE, len(rows)), self._matrix.shape[1]), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            taken = rows[block]
            # Without mode="clip", numpy gathers into a buffer of its own and copies.
            gathered = self._matrix.take(taken, axis=0, out=buffer[: len(taken)], mode="clip")
            if len(extended) <= FEW_QUERIES:
                np.vecdot(gathered, extended[:, None], out=products[:, block])
            else:
                np.matmul(extended, gathered.T, out=products[:, block])
        return products


def _largest(scores: Floats, n: int) -> Ints:
    """Finds the positions of the n largest scores of each row, in no order."""
    n = min(n, scores.shape[1])
    return np.argpartition(scores, scores.shape[1] - n, axis=1)[:, -n:]
