"""A recommender that uses tags alone, after the idea of TEASER as described in arXiv 2601.11182."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_RIDGE = 1e-3
"""Penalty, as a share of the mean of the Gram matrix's diagonal."""


class TagProfiles(NamedTuple):
    """Scores items by the mean tags of a history.

    tags [n_items, n_tags + 1], weights [n_tags + 1, n_items]; every item has the last tag.
    """

    tags: NDArray[Any]
    weights: NDArray[Any]

    @classmethod
    def fit(cls, flags: NDArray[Any], X: csr_matrix) -> "TagProfiles":
        """Fits ridge regressions of items on profiles.

        flags [n_items, n_tags], histories X [users, n_items].
        """
        tags = np.hstack([flags, np.ones((len(flags), 1), dtype=np.float32)])
        tags /= tags.sum(axis=1, keepdims=True)
        P = _mean(X, tags)
        G = P.T @ P
        penalty = _RIDGE * np.trace(G) / len(G) * np.eye(len(G))
        return cls(tags, np.linalg.solve(G + penalty, np.asarray((X.T @ P).T)))

    def of(self, X: Any) -> NDArray[Any]:
        """Returns mean tags of histories [users, n_items], sparse or dense: [users, n_tags + 1]."""
        return _mean(X, self.tags)


def _mean(X: Any, tags: NDArray[Any]) -> NDArray[Any]:
    counts = np.asarray(X.sum(axis=1)).reshape(-1, 1)
    means: NDArray[Any] = np.asarray(X @ tags) / np.maximum(counts, 1)
    return means
