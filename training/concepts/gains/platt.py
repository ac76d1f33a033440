"""Turns scores of items into probabilities of a tag."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from training.arrays import Bools, Doubles, Floats

_STEPS = 50
"""Newton steps, at most."""


def logistic(features: Doubles, wanted: Doubles, ridge: float = 1e-3) -> Doubles:
    """Fits a logistic regression by Newton's method: [samples, m], [samples] -> weights [m]."""
    weights = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        p = expit(features @ weights)
        gradient = features.T @ (p - wanted) + ridge * weights
        curvature = (features * (p * (1 - p))[:, None]).T @ features + ridge * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def platt(scores: Floats, tagged: Bools, fitted: Bools) -> Floats:
    """Computes the probability of the tag by a sigmoid of the score: [n_concepts, n_items].

    Fitted on the items flagged in fitted [n_items], with the softened targets of J. Platt,
    "Probabilistic outputs for support vector machines", 1999.
    """
    result = np.zeros_like(scores)
    for row, (values, flags) in enumerate(zip(scores.astype(np.float64), tagged, strict=True)):
        count = int(flags[fitted].sum())
        rest = int(fitted.sum()) - count
        standard = (values - values[fitted].mean()) / max(float(values[fitted].std()), 1e-12)
        wanted = np.where(flags[fitted], (count + 1) / (count + 2), 1 / (rest + 2))
        features = np.stack([standard, np.ones_like(standard)], axis=1)
        weights = logistic(features[fitted], wanted)
        # A score that leaves its item out is a little lower for the tagged where it tells nothing:
        # a falling sigmoid would read the tags from that.
        result[row] = expit(features @ weights) if weights[0] > 0 else wanted.mean()
    return result
