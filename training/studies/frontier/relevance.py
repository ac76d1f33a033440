"""What a place in the unsteered order is worth to a user: bases to which a concept's gain is added."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from training.concepts.gains.platt import logistic
from training.measures.metrics import discounts
from training.studies.frontier.linear_scores import LENGTH, Doubles, Floats

DEPTH = 500
"""Ranks whose worth is their own; below them it falls on with the score."""
_FITTED_RANKS = 1000
PLACES = 160
"""Places that the service's BOOST looks at."""


class Relevance(NamedTuple):
    """How likely an item at a rank of the unsteered order is wanted, by the length of the history.

    logit p = weights . (1, x, x^2, h, h x), x = log(rank), h = log(history length); targets is how
    many items are held out for each of the history.
    """

    weights: Doubles
    targets: float

    @classmethod
    def fit(
        cls, ranks: NDArray[np.int32], wanted: NDArray[np.bool_], lengths: NDArray[np.int64]
    ) -> Relevance:
        """From validation users: ranks and wanted [users, n_items], history lengths [users]."""
        rows, items = np.nonzero((ranks <= _FITTED_RANKS) & (ranks > 0))
        features = _features(ranks[rows, items], lengths[rows])
        weights = logistic(features, wanted[rows, items].astype(np.float64))
        return cls(weights, float(wanted.sum() / max(int(lengths.sum()), 1)))

    def curve(self, length: int) -> Doubles:
        """What an item of ranks 1 to 500 adds to nDCG in first place, strictly falling: [500]."""
        grid = np.arange(1, DEPTH + 1)
        p = expit(_features(grid, np.full(DEPTH, max(length, 1))) @ self.weights)
        p = np.minimum.accumulate(p) * (1 - 0.01 * grid / DEPTH)  # falls strictly: no two ranks tie
        worth: Doubles = p / _ideal(self.targets * max(length, 1))
        return worth

    def base(self, scores: Floats, lengths: NDArray[np.int64]) -> Floats:
        """The worth of every item by its score, [users, n_items]; -inf where the score is."""
        curves = {length: self.curve(length) for length in np.unique(lengths).tolist()}
        rows = [
            worth(row, curves[length]) for row, length in zip(scores, lengths.tolist(), strict=True)
        ]
        return np.array(rows, dtype=np.float32)


def worth(scores: Floats, curve: Doubles) -> Doubles:
    """A user's scores [n_items], -inf where an item is not returned, as what their ranks are worth.

    A function of the score alone: the curve's value at the best ranks, between them by
    interpolation. Below the last rank R of the curve it is w_R / (1 + (u_R - u) / tau), with tau
    such that it has w_{R/2} too.
    """
    depth = min(len(curve), int(np.isfinite(scores).sum()))
    if not depth:
        return scores.astype(np.float64)
    best = np.sort(scores)[::-1][:depth].astype(np.float64)
    middle = (depth - 1) // 2
    fall = 1 - curve[depth - 1] / curve[middle]
    tau = max((best[middle] - best[-1]) / fall if fall > 0 else 0.0, 1e-12)
    below = np.maximum(best[-1] - scores, 0.0)
    return np.where(
        below > 0,
        curve[depth - 1] / (1 + below / tau),
        np.interp(scores, best[::-1], curve[:depth][::-1]),
    ) + np.where(np.isfinite(scores), 0.0, -np.inf)


def places(scores: Floats) -> Floats:
    """What the service's BOOST adds to: the rank transform, 1 / log2(1 + rank), as a function of the score.

    Between the scores of two of the best 160 places it is joined; beyond the last one the linear goes
    on, as it falls on the whole from the middle one. Scores [users, n_items], -inf where an item is
    not returned.
    """
    return np.array([_along_places(row) for row in scores], dtype=np.float32)


def _along_places(scores: Floats) -> Doubles:
    best = np.sort(scores[np.isfinite(scores)])[::-1][:PLACES].astype(np.float64)
    if not len(best):
        return scores.astype(np.float64)
    best, ranks = np.unique(-best, return_index=True)
    heights = 1 / np.log2(2.0 + ranks)
    middle = len(best) - 1 - len(best) // 2
    fall = best[-1] - best[middle]
    slope = (heights[middle] - heights[-1]) / fall if fall > 0 else 1.0
    below = np.maximum(-scores - best[-1], 0.0)
    return np.where(np.isfinite(scores), np.interp(-scores, best, heights) - slope * below, -np.inf)


def _features(ranks: NDArray[np.integer], lengths: NDArray[np.integer]) -> Doubles:
    x, h = np.log(ranks.astype(np.float64)), np.log(np.maximum(lengths, 1).astype(np.float64))
    return np.stack([np.ones_like(x), x, x * x, h, h * x], axis=1)


def _ideal(targets: float) -> float:
    """DCG of the best list for so many targets, between the whole numbers by interpolation."""
    return float(np.interp(targets, np.arange(1, LENGTH + 1), np.cumsum(discounts(LENGTH))))
