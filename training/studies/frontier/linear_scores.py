"""Lists from scores that are linear in a strength, base + t gain, and the search for a share.

Few items can enter a list for any t in [0, T]: those near the top at 0 and at T. Lists are made
from these candidates, and a bound proves that no other item belongs in them; where it does not, all
items of the user are ranked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.arrays import Floats, Ints

Lists = NDArray[np.int64]
Share = Callable[[Lists], float]
"""Returns the mean share of lists [users, 20]."""

LENGTH = 20
_DEPTH = 128
"""Candidates from either end of the strengths; more make the bound fail less often."""
_SAMPLE = 50
"""Users of the sample on which the largest strength is first looked for."""
_STEP = 3.0
"""Factor between the largest strengths that are tried."""
_TOLERANCE = 2e-4
"""Distance from the target at which the search stops, in exposure share."""
_MOST_STEPS = 24
_LARGEST = 2.0**12
"""Strength from which the gain alone decides, in units of the base's spread over the gain's."""


class LinearScores(NamedTuple):
    """Scores base [users, n_items] + t gain, for t from 0 to limit.

    gain is [n_items] or [users, n_items]. base is -inf where an item must not be returned. With
    reorder, the chosen items are put in the order of the base.
    """

    base: Floats
    gain: Floats
    reorder: bool = False
    limit: float = np.inf

    def rows(self, users: Ints) -> LinearScores:
        """Returns the scores of the given users."""
        gain = self.gain if self.gain.ndim == 1 else self.gain[users]
        return LinearScores(self.base[users], gain, self.reorder, self.limit)

    def lists(self, t: float) -> Lists:
        """Returns top-20 lists, [users, 20], best first."""
        values = self.base + np.float32(t) * self.gain
        places = top_n(values, LENGTH)
        return best_first(places, self.base if self.reorder else values)


class CandidatePool:
    """Makes lists for t in [0, end] from the items that can be in one."""

    def __init__(self, scores: LinearScores, best_at_0: Lists, end: float) -> None:
        self.scores = scores
        self.end = end
        depth = best_at_0.shape[1]
        at_end = scores.base + np.float32(end) * scores.gain
        best_at_end = top_n(at_end, depth)
        self._bound_0 = np.take_along_axis(scores.base, best_at_0, 1).min(axis=1)
        self._bound_end = np.take_along_axis(at_end, best_at_end, 1).min(axis=1)
        self.items = np.concatenate([best_at_0, best_at_end], axis=1)
        self._base = np.take_along_axis(scores.base, self.items, 1)
        repeated = np.take_along_axis(at_end, best_at_0, 1) >= self._bound_end[:, None]
        self._base[:, :depth][repeated] = -np.inf  # these items are in the second half too
        if scores.gain.ndim == 1:
            self._gain = scores.gain[self.items]
        else:
            self._gain = np.take_along_axis(scores.gain, self.items, 1)

    def lists(self, t: float) -> Lists:
        """Returns the same lists as scores.lists, for t in [0, end]."""
        values = self._base + np.float32(t) * self._gain
        places = top_n(values, LENGTH)
        part = t / self.end
        bound = (1 - part) * self._bound_0 + part * self._bound_end
        unsure = np.flatnonzero(np.take_along_axis(values, places, 1).min(axis=1) < bound)
        order = best_first(places, self._base if self.scores.reorder else values)
        lists = np.take_along_axis(self.items, order, 1)
        if len(unsure):
            lists[unsure] = self.scores.rows(unsure).lists(t)
        return lists


class SearchPoint(NamedTuple):
    """A strength, and the lists there."""

    t: float
    lists: Lists


def solve(
    scores: LinearScores, share: Share, targets: list[float], best_at_0: Lists
) -> list[SearchPoint | None]:
    """Finds the smallest strength at which the share equals each target; None where none does.

    Args:
        scores: linear in the strength.
        share: the mean over the users of the lists.
        targets: all above or all below the share at t = 0, the nearest first.
        best_at_0: [users, depth], each user's best items by the base, in any order.
    """
    sample = scores.rows(np.arange(0, len(scores.base), max(1, len(scores.base) // _SAMPLE)))
    nearest = np.take_along_axis(scores.base, best_at_0, 1)
    start = share(np.take_along_axis(best_at_0, best_first(top_n(nearest, LENGTH), nearest), 1))
    last = targets[-1]
    sign = 1.0 if last >= start else -1.0
    margin = 0.05 * abs(last - start)  # the sample may differ a little from all users
    unit = spread(sample.base) / max(float(np.std(sample.gain)), 1e-12)
    end = min(scores.limit, unit / 8)
    most = min(scores.limit, _LARGEST * unit)
    while end < most and sign * share(sample.lists(end)) < sign * last + margin:
        end = min(_STEP * end, most)
    pool = CandidatePool(scores, best_at_0, end)
    known = {0.0: share(pool.lists(0.0)), end: share(pool.lists(end))}
    while end < most and sign * known[end] < sign * last:
        end = min(_STEP * end, most)
        pool = CandidatePool(scores, best_at_0, end)
        known[end] = share(pool.lists(end))
    return [_reach(pool, share, target, sign, known) for target in targets]


class _Bracket:
    """Two strengths around a root, narrowed by regula falsi.

    An end that stays twice has its value halved (the Illinois rule), so that the other moves.
    """

    def __init__(self, low: float, below: float, high: float, above: float) -> None:
        self.low = low
        self.high = high
        self._below = below
        self._above = above
        self._side = 0

    def next(self) -> float:
        """Returns the strength to try next."""
        rise = self._above - self._below
        part = -self._below / rise if self._above > self._below else 0.5
        return self.low + (self.high - self.low) * part

    def narrow(self, t: float, excess: float) -> None:
        """Replaces an end by a strength, whose share exceeds the target by excess."""
        if excess >= 0:
            self.high = t
            self._above = excess
            if self._side == 1:
                self._below /= 2
            self._side = 1
        else:
            self.low = t
            self._below = excess
            if self._side == -1:
                self._above /= 2
            self._side = -1


def _reach(
    pool: CandidatePool, share: Share, target: float, sign: float, known: dict[float, float]
) -> SearchPoint | None:
    """Solves for one target between the known strengths, and adds the shares on the way to them."""
    excess = {t: sign * (value - target) for t, value in known.items()}
    reached = [t for t in sorted(excess) if excess[t] >= 0]
    if not reached:
        return None
    high = reached[0]
    if high == 0.0:
        return SearchPoint(0.0, pool.lists(0.0))
    low = max(t for t in excess if t < high)
    bracket = _Bracket(low, excess[low], high, excess[high])
    t = high
    lists = pool.lists(high)
    for _ in range(_MOST_STEPS):
        if abs(excess[t]) < _TOLERANCE:
            break
        t = bracket.next()
        lists = pool.lists(t)
        known[t] = share(lists)
        excess[t] = sign * (known[t] - target)
        bracket.narrow(t, excess[t])
    return SearchPoint(t, lists)


def top_n(values: Floats, n: int) -> Lists:
    """Returns the places of each row's n largest values, in no order: [users, n]."""
    n = min(n, values.shape[1])
    return np.argpartition(values, values.shape[1] - n, axis=1)[:, values.shape[1] - n :]


def best_first(places: Lists, values: Floats) -> Lists:
    """Returns the places in falling order of their values."""
    order = np.argsort(-np.take_along_axis(values, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order, 1)


def spread(base: Floats) -> float:
    """Returns the mean over users of the standard deviation of the items that may be returned."""
    return float(np.std(base, axis=1, where=np.isfinite(base)).mean())


def best_items(base: Floats) -> Lists:
    """Returns each user's best items by the base, as many as a pool takes from either end."""
    return top_n(base, _DEPTH)
