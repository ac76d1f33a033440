"""Bases to which a concept's gain is added: the worth of a place in the unsteered order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from training.arrays import Bools, Doubles, Floats, Ints
from training.concepts.gains.platt import logistic
from training.measures.metrics import discounts
from training.studies.frontier.linear_scores import LENGTH

DEPTH = 500
"""Ranks that have a worth of their own; below them it falls with the score."""
_FITTED_RANKS = 1000
"""Best ranks of each user to which the model is fitted."""
PLACES = 160
"""Places that the service's BOOST reads."""


class Relevance(NamedTuple):
    """The probability that an item at an unsteered rank is wanted, by the length of the history.

    logit p = weights . (1, x, x^2, h, h x), x = log(rank), h = log(history length); targets is the
    number of held-out items per item of the history.
    """

    weights: Doubles
    targets: float

    @classmethod
    def fit(cls, ranks: NDArray[np.int32], wanted: Bools, lengths: Ints) -> Relevance:
        """Fits to validation users: ranks and wanted [users, n_items], history lengths [users]."""
        rows, items = np.nonzero((ranks <= _FITTED_RANKS) & (ranks > 0))
        features = _features(ranks[rows, items], lengths[rows])
        weights = logistic(features, wanted[rows, items].astype(np.float64))
        return cls(weights, float(wanted.sum() / max(int(lengths.sum()), 1)))

    def curve(self, length: int) -> Doubles:
        """Returns the gain in nDCG by an item of each rank 1 to 500 in first place: [500].

        Strictly falling.
        """
        grid = np.arange(1, DEPTH + 1)
        p = expit(_features(grid, np.full(DEPTH, max(length, 1))) @ self.weights)
        p = np.minimum.accumulate(p) * (1 - 0.01 * grid / DEPTH)  # falls strictly: no two ranks tie
        worth: Doubles = p / _ideal(self.targets * max(length, 1))
        return worth

    def base(self, scores: Floats, lengths: Ints) -> Floats:
        """Returns the worth of every item by its score, [users, n_items]; -inf stays -inf."""
        curves = {length: self.curve(length) for length in np.unique(lengths).tolist()}
        rows = [
            worth(row, curves[length]) for row, length in zip(scores, lengths.tolist(), strict=True)
        ]
        return np.array(rows, dtype=np.float32)


def worth(scores: Floats, curve: Doubles) -> Doubles:
    """Maps a user's scores [n_items] to what their ranks are worth; -inf stays -inf.

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
    """Maps scores to the base of the service's BOOST: 1 / log2(1 + rank), as a function of score.

    Scores [users, n_items], -inf where an item is not returned. Linear between the scores of the
    best 160 places; beyond the last one it continues with the mean slope from the middle one.
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
    x = np.log(ranks.astype(np.float64))
    h = np.log(np.maximum(lengths, 1).astype(np.float64))
    return np.stack([np.ones_like(x), x, x * x, h, h * x], axis=1)


def _ideal(targets: float) -> float:
    """Returns the DCG of the best list for a number of targets, interpolated."""
    return float(np.interp(targets, np.arange(1, LENGTH + 1), np.cumsum(discounts(LENGTH))))
