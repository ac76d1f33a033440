"""Computes BOOST: moves items through the user's own order, by how much of a concept they carry.

Rank r of the unsteered order is worth 1 / log2(1 + r), the exposure that it gets. A boost of x adds
x times an item's gain to the worth of its score. By tags, the gain is 1 for items with the tag;
otherwise it comes from the bundle. The item's new score is the score with the new worth. So scores
keep their unit, whatever the model's is, and what a boost adds to a score is a number: a reason.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Bools, Doubles, Ints
from service.ranking.measures import discounts
from service.steering.plan import Applied, Plan

PLACES = 160
"""Ranks whose worth is exact. More serve rare tags slightly better, and slow down each list."""

MAX_COMBINED = 4
"""Concepts boosted by tags whose every combination is searched among: at most 16 sets of items."""

LEVELS = (1 / 4, 1 / 2, 3 / 4, 7 / 8, 15 / 16)
"""Fractions of the range of total boosts: items above each are searched among.

Used where total boosts are not one of a few values. More levels miss fewer items, and cost a search
each.
"""

_ROUNDING = 1e-6


class Boost(NamedTuple):
    """One boost of a plan.

    Attributes:
        position: Its edit's position in the plan.
        concept: The concept's name.
        amount: Worth that it adds to an item of gain 1.
        gain: How much of the concept each item carries, of the catalogue or of some items: bool, or
            0 to 1.
    """

    position: int
    concept: str
    amount: float
    gain: AnyArray

    def of(self, items: Ints) -> "Boost":
        """Restricts the boost to some items."""
        return self._replace(gain=self.gain[items].astype(np.float64))


class Places:
    """Converts scores of one user to worths and back; both functions rise strictly.

    Between the scores of adjacent ranks the function is linear. Above the first rank and below the
    last it goes on with the mean slope from that rank to the middle one.

    Args:
        unsteered: Scores of at least the best PLACES items, or of all, in any order.
    """

    def __init__(self, unsteered: AnyArray) -> None:
        best = np.sort(unsteered.astype(np.float64))[::-1][:PLACES]
        if not len(best):
            best = np.zeros(1)
        firsts = np.append(True, best[1:] < best[:-1])  # equal scores have the better rank's worth
        self._scores: Doubles = best[firsts][::-1]
        self._worths: Doubles = discounts(len(best)).astype(np.float64)[firsts][::-1]

    def worths(self, scores: AnyArray) -> Doubles:
        """Computes the worths of scores, in any order."""
        return _interpolate(self._scores, self._worths, scores)

    def scores(self, worths: AnyArray) -> Doubles:
        """Computes the scores of worths, in any order."""
        return _interpolate(self._worths, self._scores, worths)


def boosts_of(plan: Plan, applied: Applied, gain_of: Callable[[str], AnyArray]) -> list[Boost]:
    """Returns the plan's boosts at the strength that is applied.

    Args:
        plan: The plan.
        applied: How far the steering goes.
        gain_of: Returns a concept's gain over the whole catalogue, [n_items], by its name.
    """
    if not plan.boosts:
        return []
    return [
        Boost(position, edit.target.name, edit.strength * fraction, gain_of(edit.target.name))
        for position, (edit, fraction) in enumerate(plan.solved_edits(applied))
        if edit.is_boost and edit.strength * fraction
    ]


def better_off(boosts: Sequence[Boost]) -> Iterator[Bools]:
    """Yields sets of items, bool [n_items], to search among by unboosted score.

    A set holds all items whose total boost is at least some value. Within it, an item is beaten in
    the end by all items that beat it unboosted, so each listed item is among the best of one set.
    By tags there is a set for every value, and lists are exact. Otherwise the values are some
    levels, and an item just below a level may be missed.
    """
    first = boosts[0]
    if len(boosts) == 1 and first.gain.dtype == bool:
        yield first.gain if first.amount > 0 else ~first.gain
        return
    amounts: dict[str, float] = defaultdict(float)
    total = np.zeros(len(first.gain))
    for boost in boosts:
        amounts[boost.concept] += boost.amount
        total += boost.amount * boost.gain.astype(np.float32)
    by_tags = all(boost.gain.dtype == bool for boost in boosts)
    if by_tags and len(amounts) <= MAX_COMBINED:
        values = _sums(list(amounts.values()))
    else:
        least = total.min()
        span = total.max() - least
        values = [least, *(least + level * span for level in LEVELS)]
    for value in values[1:]:  # every item has at least the first
        items = total >= value - _ROUNDING
        if items.any():
            yield items


def added(places: Places, scores: AnyArray, boosts: Sequence[Boost]) -> list[Doubles]:
    """Computes what each boost adds to the scores, after the boosts before it: float64 [m] each.

    Args:
        places: The user's worths.
        scores: Scores without the boosts, [m].
        boosts: Boosts restricted to the same items.
    """
    before = scores.astype(np.float64)
    worths = places.worths(scores)
    parts = []
    for boost in boosts:
        worths = worths + boost.amount * boost.gain
        after = np.where(boost.gain > 0, places.scores(worths), before)
        parts.append(after - before)
        before = after
    return parts


def settles(scores: AnyArray, boosts: Sequence[Boost], depth: int, candidate_depth: int) -> bool:
    """Returns whether the best candidates are the best of all items, boosts included.

    Args:
        scores: The candidates' scores, unsteered in the first row, steered in the last: [q, m].
        boosts: Boosts restricted to the candidates.
        depth: How many of the best items are needed.
        candidate_depth: How many of the best items of each row are among the candidates.
    """
    steered = scores[-1]
    if len(steered) < candidate_depth:
        return True
    places = Places(scores[0])
    worths = places.worths(steered) + sum(boost.amount * boost.gain for boost in boosts)
    cut = np.partition(steered, -candidate_depth)[-candidate_depth]
    outside = places.worths(cut) + sum(max(boost.amount, 0.0) for boost in boosts)
    return bool(np.partition(worths, -depth)[-depth] >= outside)


def _sums(amounts: Sequence[float]) -> list[float]:
    """Returns the sums of all subsets, ascending, each once."""
    subsets = (subset for size in range(len(amounts) + 1) for subset in combinations(amounts, size))
    return sorted({sum(subset) for subset in subsets})


def _interpolate(x: Doubles, y: Doubles, at: AnyArray) -> Doubles:
    """Interpolates linearly through points, and extrapolates with the mean slope of each half.

    Args:
        x: Strictly rising, [k].
        y: Strictly rising, [k].
        at: Where to evaluate.
    """
    middle = len(x) // 2
    last = len(x) - 1
    below = _slope(x, y, 0, middle)
    above = _slope(x, y, min(middle, max(last - 1, 0)), last)
    beyond: Doubles = below * np.minimum(at - x[0], 0.0) + above * np.maximum(at - x[-1], 0.0)
    return np.interp(at, x, y) + beyond


def _slope(x: Doubles, y: Doubles, start: int, end: int) -> float:
    return (y[end] - y[start]) / (x[end] - x[start]) if end > start else 1.0
