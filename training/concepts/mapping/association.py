"""Measures how well single neurons tell a concept's items apart: AUC and correlation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from scipy.stats import rankdata

from training.arrays import Bools, Doubles, Floats
from training.concepts.mapping.evidence import Evidence

LEAST_JUDGED = 3
"""Items with (and without) a concept below which an AUC is too uncertain to be computed."""


def area_under_curve(scores: NDArray[np.floating], positive: Bools) -> float:
    """Returns the probability that a positive scores above a negative, ties counting half.

    NaN with fewer than 3 positives or negatives.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if min(n_positive, n_negative) < LEAST_JUDGED:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def neuron_aucs(evidence: Evidence) -> Doubles:
    """Computes the AUC of every neuron's activation for every concept: [n_concepts, n_neurons].

    NaN as in area_under_curve. Only stored activations are ranked; all others tie at 0, so that
    sparse codes stay sparse.
    """
    members = evidence.members
    codes = evidence.codes
    n_items = codes.shape[0]
    positives = np.diff(members.indptr).astype(np.float64)[:, None]
    negatives = n_items - positives
    ranked = _ranks(codes)
    rank_sums = (members @ ranked.above_zeros).toarray() + positives * ranked.zeros
    with np.errstate(invalid="ignore", divide="ignore"):
        aucs: Doubles = (rank_sums - positives * (positives + 1) / 2) / (positives * negatives)
    aucs[np.minimum(positives, negatives)[:, 0] < LEAST_JUDGED] = np.nan
    return aucs


def weights_aucs(weights: Floats, evidence: Evidence) -> Doubles:
    """Computes how well each concept's weights [n_concepts, n_neurons] tell items apart.

    Returns an AUC for each concept, [n_concepts].
    """
    scores = evidence.codes @ weights.T
    present = evidence.members.toarray() > 0
    return np.array([area_under_curve(scores[:, row], flags) for row, flags in enumerate(present)])


def auc(evidence: Evidence) -> Floats:
    """Computes AUC - 1/2, the AUC above chance, or 0 if undefined: [n_concepts, n_neurons]."""
    return np.asarray(np.nan_to_num(neuron_aucs(evidence), nan=0.5) - 0.5, dtype=np.float32)


def correlation(evidence: Evidence) -> Floats:
    """Computes the point-biserial correlation of activation and tag, 0 where either is constant.

    r = (mean with - mean without) / sd x sqrt(p (1 - p)): [n_concepts, n_neurons].
    """
    codes = evidence.codes.astype(np.float64)
    n_items = max(codes.shape[0], 1)
    share = np.diff(evidence.members.indptr)[:, None] / n_items
    mean = np.asarray(codes.mean(axis=0))
    variance = np.maximum(np.asarray(codes.multiply(codes).mean(axis=0)) - mean**2, 0)
    covariance = np.asarray((evidence.members @ codes).todense()) / n_items - share * mean
    spread = np.sqrt(variance * share * (1 - share))
    # A constant column has a variance of rounding errors, not of 0.
    varies = (variance > 1e-12 * np.maximum(mean**2, 1e-30)) & (spread > 0)
    correlations = np.divide(covariance, spread, out=np.zeros_like(covariance), where=varies)
    return np.asarray(correlations, dtype=np.float32)


class _Ranks(NamedTuple):
    """Mid-ranks of each column: zeros [n_neurons], the rank of a 0; above_zeros, added for rest."""

    zeros: Doubles
    above_zeros: csr_matrix


def _ranks(codes: csr_matrix) -> _Ranks:
    columns = csc_matrix(codes)
    columns.eliminate_zeros()
    n_items, n_neurons = columns.shape
    counts = np.diff(columns.indptr)
    column = np.repeat(np.arange(n_neurons), counts)
    order = np.lexsort((columns.data, column))
    values = columns.data[order]
    starts = np.r_[True, (np.diff(values) != 0) | (np.diff(column) != 0)][: len(values)]
    group = np.cumsum(starts) - 1
    sizes = np.bincount(group)
    firsts = np.flatnonzero(starts) - columns.indptr[column[starts]]
    middles = np.repeat(firsts + (sizes + 1) / 2, sizes)
    below = np.bincount(column, weights=columns.data < 0, minlength=n_neurons)
    zeros = n_items - counts
    ranks = np.empty(len(values))
    # Negative values rank below the zeros, positive ones above them.
    ranks[order] = middles + np.where(values > 0, zeros[column], 0)
    zero_rank = below + (zeros + 1) / 2
    above = csc_matrix(
        (ranks - zero_rank[column], columns.indices, columns.indptr), shape=columns.shape
    )
    return _Ranks(zero_rank, above.tocsr())
