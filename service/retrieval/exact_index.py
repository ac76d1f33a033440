"""Exact search by scoring every item."""

import numpy as np

from service.arrays import Bools, Floats, Ints

SCORES_AT_ONCE = 2**24
"""Scores that an exact pass holds at a time: 64 MiB."""


ROWS_AT_ONCE = 512
"""Rows that an exact pass gathers at a time: they are still in the cache when they are multiplied."""


FEW_QUERIES = 4
"""Up to so many are quicker multiplied one by one."""


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

    def comes_by(self, wanted: Bools, n: int) -> bool:
        """See Index: to score the wanted ones is quicker."""
        return False

    def _best(self, queries: Floats, n: int, rows: Ints | None) -> Ints:
        extended = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        count = self.n_items if rows is None else len(rows)
        size = max(SCORES_AT_ONCE // max(len(queries), 1), n)
        scores, found = [], []
        for start in range(0, count, size):
            part = slice(start, start + size)
            products = (
                extended @ self._matrix[part].T
                if rows is None
                else self._scores(extended, rows[part])
            )
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
            block = self._matrix.take(
                rows[part], axis=0, out=gathered[: len(rows[part])], mode="clip"
            )
            if len(extended) <= FEW_QUERIES:
                np.vecdot(block, extended[:, None], out=scores[:, part])
            else:
                np.matmul(extended, block.T, out=scores[:, part])
        return scores


def _largest(scores: Floats, n: int) -> Ints:
    """Where the n largest of each row are, in no order."""
    n = min(n, scores.shape[1])
    return np.argpartition(scores, scores.shape[1] - n, axis=1)[:, -n:]
