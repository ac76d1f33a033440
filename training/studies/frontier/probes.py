"""Predicts tags from items' vectors, for each item by a model that did not see its tags."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from training.arrays import Bools, Floats
from training.concepts.gains.platt import platt
from training.concepts.mapping.probes import fit_logistic

_FOLDS = 5
"""Folds of the cross-fitting."""
_STEPS = 60
"""Iterations of L-BFGS, at most."""
_PENALTIES = (1e-4, 1e-3, 1e-2)
"""Penalties that are tried."""


def logistic_probe(
    vectors: Floats, tagged: Bools, fitted: Bools, rng: np.random.Generator
) -> Floats:
    """Cross-fits logistic regressions: vectors [n_items, d] -> probabilities [n_concepts, n_items].

    tagged is [n_concepts, n_items]. Five folds; one penalty for all concepts, with the smallest
    cross-fitted log loss. Items outside fitted [n_items] train nothing.
    """
    X = torch.from_numpy(vectors / max(float(vectors[fitted].std()), 1e-12))
    Y = torch.from_numpy(tagged.T.astype(np.float32))
    fold = rng.integers(_FOLDS, size=len(vectors))
    best = torch.zeros(0)
    best_loss = np.inf
    for penalty in _PENALTIES:
        logits = torch.empty_like(Y)
        for part in range(_FOLDS):
            kept = torch.from_numpy(fitted & (fold != part))
            model = fit_logistic(X[kept], Y[kept], penalty, least_rate=1e-4, max_iter=_STEPS)
            out = torch.from_numpy(fold == part)
            logits[out] = X[out] @ model.W + model.bias
        judged = torch.from_numpy(fitted)
        loss = float(binary_cross_entropy_with_logits(logits[judged], Y[judged]))
        if loss < best_loss:
            best = logits
            best_loss = loss
    return torch.sigmoid(best).T.contiguous().numpy()


def neighbour_probe(vectors: Floats, tagged: Bools, fitted: Bools) -> Floats:
    """Scores items by the tagged share of their neighbours, then Platt: [n_concepts, n_items].

    Neighbours of vectors [n_items, m] are weighted by cosine to the 4th power; an item is left out
    of its own.
    """
    X = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    shown = (tagged & fitted).T.astype(np.float32)
    scores = np.empty(tagged.T.shape, dtype=np.float32)
    for start in range(0, len(X), 1024):
        rows = np.arange(start, min(start + 1024, len(X)))
        K = np.maximum(X[rows] @ X.T, 0) ** 4
        K[np.arange(len(rows)), rows] = 0
        K[:, ~fitted] = 0
        scores[rows] = (K @ shown) / np.maximum(K.sum(axis=1, keepdims=True), 1e-12)
    return platt(np.ascontiguousarray(scores.T), tagged, fitted)
