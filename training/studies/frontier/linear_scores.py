"""Lists along a linear of scores, base + t gain, and the strength t at which a share is reached.

Few items can enter a list for any t in [0, T]: those near the top at 0 and at T. Lists are made
from these, and a bound proves that no other item belongs in them; where it does not, the user's
whole row is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Lists = NDArray[np.int64]

LENGTH = 20
_DEPTH = 128
_SAMPLE = 50
_STEP = 3.0
_TOLERANCE = 2e-4
_MOST_STEPS = 24
_LARGEST = 2.0**12
"""Strength at which a linear counts as all gain: in units of the base's spread over the gain's."""


class LinearScores(NamedTuple):
    """Scores base [users, n_items] + t gain, for t from 0 to limit.

    gain is [n_items] or [users, n_items]. base is -inf where an item must not be returned. With
    reorder, the chosen items are put in the order of the base.
    """

    base: Floats
    gain: Floats
    reorder: bool = False
    limit: float = np.inf

    def rows(self, users: NDArray[np.int64]) -> LinearScores:
        """The same of some users."""
        gain = self.gain if self.gain.ndim == 1 else self.gain[users]
        return LinearScores(self.base[users], gain, self.reorder, self.limit)

    def lists(self, t: float) -> Lists:
        """Top-20 lists, [users, 20], best first."""
        values = self.base + np.float32(t) * self.gain
        places = top_n(values, LENGTH)
        return best_first(places, self.base if self.reorder else values)


class CandidatePool:
    """A linear's items that can be in a list for t in [0, end], and lists made from them."""

    def __init__(self, linear: LinearScores, best_at_0: Lists, end: float) -> None:
        self.linear, self.end = linear, end
        depth = best_at_0.shape[1]
        at_end = linear.base + np.float32(end) * linear.gain
        near_end = top_n(at_end, depth)
        self._most_0 = np.take_along_axis(linear.base, best_at_0, 1).min(axis=1)
        self._most_end = np.take_along_axis(at_end, near_end, 1).min(axis=1)
        self.items = np.concatenate([best_at_0, near_end], axis=1)
        self._base = np.take_along_axis(linear.base, self.items, 1)
        again = np.take_along_axis(at_end, best_at_0, 1) >= self._most_end[:, None]
        self._base[:, :depth][again] = -np.inf  # these items are in the second half too
        if linear.gain.ndim == 1:
            self._gain = linear.gain[self.items]
        else:
            self._gain = np.take_along_axis(linear.gain, self.items, 1)

    def lists(self, t: float) -> Lists:
        """What linear.lists gives, for t in [0, end]."""
        values = self._base + np.float32(t) * self._gain
        places = top_n(values, LENGTH)
        part = t / self.end
        others = (1 - part) * self._most_0 + part * self._most_end
        unsure = np.flatnonzero(np.take_along_axis(values, places, 1).min(axis=1) < others)
        lists = np.take_along_axis(
            self.items, best_first(places, self._base if self.linear.reorder else values), 1
        )
        if len(unsure):
            lists[unsure] = self.linear.rows(unsure).lists(t)
        return lists


class SearchPoint(NamedTuple):
    """Where a linear reaches a share: the strength and the lists there."""

    t: float
    lists: Lists


def solve(
    linear: LinearScores, share: Callable[[Lists], float], targets: list[float], best_at_0: Lists
) -> list[SearchPoint | None]:
    """The first strength at which the share is each of the targets; None where it is never reached.

    share is the mean over the users of the lists. The targets are all above or all below the share
    at t = 0, nearest first. best_at_0 [users, depth] are each user's best items by the base, in any
    order.
    """
    sample = linear.rows(np.arange(0, len(linear.base), max(1, len(linear.base) // _SAMPLE)))
    nearest = np.take_along_axis(linear.base, best_at_0, 1)
    start = share(np.take_along_axis(best_at_0, best_first(top_n(nearest, LENGTH), nearest), 1))
    sign = 1.0 if targets[-1] >= start else -1.0
    wanted = sign * targets[-1] + 0.05 * abs(
        targets[-1] - start
    )  # a sample: a little further than is needed
    unit = spread(sample.base) / max(float(np.std(sample.gain)), 1e-12)
    end, most = min(linear.limit, unit / 8), min(linear.limit, _LARGEST * unit)
    while end < most and sign * share(sample.lists(end)) < wanted:
        end = min(_STEP * end, most)
    pool = CandidatePool(linear, best_at_0, end)
    known = {0.0: share(pool.lists(0.0)), end: share(pool.lists(end))}
    while end < most and sign * known[end] < sign * targets[-1]:
        end = min(_STEP * end, most)
        pool = CandidatePool(linear, best_at_0, end)
        known[end] = share(pool.lists(end))
    return [_reach(pool, share, target, sign, known) for target in targets]


def _reach(
    pool: CandidatePool,
    share: Callable[[Lists], float],
    target: float,
    sign: float,
    known: dict[float, float],
) -> SearchPoint | None:
    """Regula falsi that halves the value of an end that stays (the Illinois rule), between known points."""
    excess = {t: sign * (value - target) for t, value in known.items()}
    reached = [t for t in sorted(excess) if excess[t] >= 0]
    if not reached:
        return None
    high = reached[0]
    if high == 0.0:
        return SearchPoint(0.0, pool.lists(0.0))
    low = max(t for t in excess if t < high)
    below, above, side = excess[low], excess[high], 0
    t, lists = high, pool.lists(high)
    for _ in range(_MOST_STEPS):
        if abs(excess[t]) < _TOLERANCE:
            break
        t = low + (high - low) * (-below / (above - below) if above > below else 0.5)
        lists = pool.lists(t)
        known[t] = share(lists)
        excess[t] = sign * (known[t] - target)
        if excess[t] >= 0:
            high, above = t, excess[t]
            below, side = (below / 2 if side == 1 else below), 1
        else:
            low, below = t, excess[t]
            above, side = (above / 2 if side == -1 else above), -1
    return SearchPoint(t, lists)


def top_n(values: Floats, count: int) -> Lists:
    """Places of the largest of each row, in no order: [users, count]."""
    count = min(count, values.shape[1])
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]


def best_first(places: Lists, values: Floats) -> Lists:
    """The places in falling order of their values."""
    order = np.argsort(-np.take_along_axis(values, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order, 1)


def spread(base: Floats) -> float:
    """Mean over users of the standard deviation of what may be returned."""
    return float(np.std(base, axis=1, where=np.isfinite(base)).mean())


def best_items(base: Floats) -> Lists:
    """Each user's best items by the base, as many as a pool takes from either end."""
    return top_n(base, _DEPTH)
