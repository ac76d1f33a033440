"""Contrast: a concept's direction in code space, and how well it tells items apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

Floats = NDArray[np.float32]

_LEAST_JUDGED = 3
"""Held-out items with (and without) the concept below which an AUC would say nothing."""


class Contrast(NamedTuple):
    """weights float32 [n_concepts, n_neurons]; auc float64 [n_concepts], NaN with too few held-out items."""

    weights: Floats
    auc: NDArray[np.float64]


def contrast_weights(members: csr_matrix, codes: csr_matrix) -> Floats:
    """Mean code of the items with the concept minus mean code of the rest.

    members [n_concepts, n_items] and codes [n_items, n_neurons] of one-item histories -> float32
    [n_concepts, n_neurons]; zeros where either side is empty. Source: CALISSTA's concept vectors.
    """
    counts = np.asarray(members.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    others = codes.shape[0] - counts
    inside = np.asarray((members @ codes).todense(), dtype=np.float64)
    outside = np.asarray(codes.sum(axis=0), dtype=np.float64) - inside
    difference = inside / np.maximum(counts, 1) - outside / np.maximum(others, 1)
    return np.where((counts > 0) & (others > 0), difference, 0.0).astype(np.float32)


def fit_contrast(
    members: csr_matrix,
    codes: csr_matrix,
    fitted: NDArray[np.bool_],
    held_out_share: float,
    rng: np.random.Generator,
) -> Contrast:
    """Weights from all fitted items, each judged by a contrast of the others on a held-out share of them.

    fitted [n_items] flags the items whose codes mean something: those that occur in training often enough.
    """
    judged = fitted & (rng.random(len(fitted)) < held_out_share)
    kept, judged_rows = np.flatnonzero(fitted & ~judged), np.flatnonzero(judged)
    trial = contrast_weights(members[:, kept], codes[kept])
    scores = codes[judged_rows] @ trial.T
    present = members[:, judged_rows].toarray() > 0
    aucs = np.array(
        [area_under_curve(scores[:, row], flags) for row, flags in enumerate(present)], dtype=np.float64
    )
    rows = np.flatnonzero(fitted)
    return Contrast(contrast_weights(members[:, rows], codes[rows]), aucs)


def area_under_curve(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties half; NaN with fewer than 3 of either."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if min(n_positive, n_negative) < _LEAST_JUDGED:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
