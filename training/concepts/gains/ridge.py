"""Predicts from items' vectors which items carry a concept, leaving each item's own tag out."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from training.arrays import Bools, Doubles, Floats
from training.concepts.gains.platt import platt

_RIDGES = 10.0 ** np.arange(-2.0, 3.0)
"""Penalties that are tried, in units of the mean eigenvalue."""


class Spectrum(NamedTuple):
    """Eigenvalues of X^T X, and X Q, from which ridge regressions of any target follow."""

    values: Doubles
    XQ: Doubles

    @classmethod
    def of(cls, vectors: Floats, fitted: Bools) -> Self:
        """Decomposes vectors [n_items, m], centred on the fitted items."""
        X = vectors.astype(np.float64)
        X -= X[fitted].mean(axis=0)
        values, Q = np.linalg.eigh(X[fitted].T @ X[fitted])
        return cls(np.maximum(values, 0), X @ Q)


def ridge_probe(spectrum: Spectrum, tagged: Bools, fitted: Bools) -> Floats:
    """Computes probabilities by leave-one-out ridge regression and Platt: [n_concepts, n_items].

    A linear kernel of the vectors; each concept gets the penalty with the smallest leave-one-out
    log loss.
    """
    values, XQ = spectrum
    Y = tagged[:, fitted].T - tagged[:, fitted].mean(axis=1)
    projected = XQ[fitted].T @ Y
    best = np.zeros(tagged.shape, dtype=np.float32)
    best_loss = np.full(len(tagged), np.inf)
    for penalty in _RIDGES * values.mean():
        scores = (XQ @ (projected / (values + penalty)[:, None])).T
        leverage = ((XQ[fitted] ** 2) / (values + penalty)).sum(axis=1) + 1 / fitted.sum()
        scores[:, fitted] = (scores[:, fitted] - leverage * Y.T) / (1 - np.minimum(leverage, 0.999))
        p = platt(scores.astype(np.float32), tagged, fitted)
        loss = _log_loss(p[:, fitted], tagged[:, fitted])
        better = loss < best_loss
        best[better] = p[better]
        best_loss[better] = loss[better]
    return best


def _log_loss(p: Floats, tagged: Bools) -> Doubles:
    right = np.clip(np.where(tagged, p, 1 - p), 1e-7, 1).astype(np.float64)
    losses: Doubles = -np.log(right).mean(axis=1)
    return losses
