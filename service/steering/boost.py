"""BOOST: items move up, or down, through the user's own order, by how much of a concept they carry. Pure.

A place r of the unsteered order is worth 1 / log2(1 + r), the exposure that it gets. A boost of x
adds x times its gain to the worth of each item: by tags the gain is 1 for those that have it, else
it is the bundle's. What the item's score becomes is the score that is worth as much. So scores stay
in their unit, whatever the model's is, and what a boost added to one is a number: a reason.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Bools
from service.engine.query import Query
from service.ranking.measures import discounts
from service.steering.plan import Applied
from service.steering.solver.linear import Doubles

PLACES = 160
"""Places whose worth is their own. More would serve rare tags a little better, and cost each list time."""


MOST_APART = 4
"""Concepts boosted by tags whose every combination is searched among; it is at most 16 sets of items."""


LEVELS = (1 / 4, 1 / 2, 3 / 4, 7 / 8, 15 / 16)
"""Of the range of what is added: what is searched among where that is not one of a few values."""


_ROUNDING = 1e-6


class Boost(NamedTuple):
    """A plan's boost: where it stands among the edits, the concept, and the worth that it adds, times a gain.

    gain is of all items of the catalogue or of some: bool, or from 0 to 1.
    """

    position: int
    concept: str
    amount: float
    gain: AnyArray

    def of(self, items: AnyArray) -> "Boost":
        """The same, of some items."""
        return self._replace(gain=self.gain[items].astype(np.float64))


class Places:
    """What scores are worth to a user, and the scores of worths: both strictly rising, and straight lines.

    Between the scores of two places their worths are joined; above the first place and below the
    last the line goes on, rising as it does on the whole between that place and the middle one.

    Args:
        unsteered: Scores of at least the best PLACES items, or of all, in any order.
    """

    def __init__(self, unsteered: AnyArray) -> None:
        best = np.sort(unsteered.astype(np.float64))[::-1][:PLACES]
        if not len(best):
            best = np.zeros(1)
        firsts = np.append(True, best[1:] < best[:-1])  # equal scores are worth the better place
        self._scores: Doubles = best[firsts][::-1]
        self._worths: Doubles = discounts(len(best)).astype(np.float64)[firsts][::-1]

    def worths(self, scores: AnyArray) -> Doubles:
        """Of scores, in any order."""
        return _along(self._scores, self._worths, scores)

    def scores(self, worths: AnyArray) -> Doubles:
        """Of worths, in any order."""
        return _along(self._worths, self._scores, worths)


def boosts_of(query: Query, applied: Applied) -> list[Boost]:
    """The plan's boosts, as strong as the steering goes."""
    if not query.plan.boosts:
        return []
    return [
        Boost(position, edit.target.name, edit.strength * fraction, _gain(query, edit.target.name))
        for position, (edit, fraction) in enumerate(query.plan.solved_edits(applied))
        if edit.is_boost and edit.strength * fraction
    ]


def better_off(boosts: Sequence[Boost]) -> Iterator[Bools]:
    """Sets of items [n_items]: each of the best of all is among the best, unboosted, of one of them.

    All that get a value or more: an item's betters among those that get at least what it gets are
    its betters in the end. By tags the values are all that there are, and the lists exact; else
    they are some levels, and an item may be missed that is just below one.
    """
    first = boosts[0]
    if len(boosts) == 1 and first.gain.dtype == bool:  # the sets are at hand
        yield first.gain if first.amount > 0 else ~first.gain
        return
    amounts: dict[str, float] = defaultdict(float)
    total = np.zeros(len(first.gain))
    for boost in boosts:
        amounts[boost.concept] += boost.amount
        total += boost.amount * boost.gain.astype(np.float32)
    if len(amounts) <= MOST_APART and all(boost.gain.dtype == bool for boost in boosts):
        some = (
            part
            for size in range(len(amounts) + 1)
            for part in combinations(amounts.values(), size)
        )
        values = sorted({sum(part) for part in some})
    else:
        least, most = total.min(), total.max()
        values = [least, *(least + level * (most - least) for level in LEVELS)]
    for value in values[1:]:  # the first, or more, is what all items get
        found = total >= value - _ROUNDING
        if found.any():
            yield found


def added(places: Places, scores: AnyArray, boosts: Sequence[Boost]) -> list[Doubles]:
    """What each boost adds to the scores, beside those before it: float64 [m] each.

    Args:
        places: The user's.
        scores: Without the boosts, [m].
        boosts: Of the items whose scores these are.
    """
    before, worths, parts = scores.astype(np.float64), places.worths(scores), []
    for boost in boosts:
        worths = worths + boost.amount * boost.gain
        after = np.where(boost.gain > 0, places.scores(worths), before)
        parts.append(after - before)
        before = after
    return parts


def settles(every: AnyArray, boosts: Sequence[Boost], depth: int, found: int) -> bool:
    """Whether the best of some candidates are the best of all: no other item gets among them by its boosts.

    Args:
        every: The candidates' scores, unsteered first, steered last, [q, m].
        boosts: Of the candidates.
        depth: How many best are wanted.
        found: So many best of each row are among the candidates.
    """
    plain, scores = every[0], every[-1]
    if len(scores) < found:
        return True
    places = Places(plain)
    worths = places.worths(scores) + sum(boost.amount * boost.gain for boost in boosts)
    cut = np.partition(scores, -found)[-found]
    most = places.worths(cut) + sum(max(boost.amount, 0.0) for boost in boosts)
    return bool(np.partition(worths, -depth)[-depth] >= most)


def _along(x: Doubles, y: Doubles, at: AnyArray) -> Doubles:
    """The line through the points, x and y strictly rising, which goes on at both ends."""
    middle, last = len(x) // 2, len(x) - 1
    ends = (0, middle), (min(middle, max(last - 1, 0)), last)
    below, above = ((y[b] - y[a]) / (x[b] - x[a]) if b > a else 1.0 for a, b in ends)
    beyond: Doubles = below * np.minimum(at - x[0], 0.0) + above * np.maximum(at - x[-1], 0.0)
    return np.interp(at, x, y) + beyond


def _gain(query: Query, name: str) -> AnyArray:
    concept = query.bundle.labels.concept(name)
    if concept is None:
        raise ValueError(f"a boost of {name!r}, which is no concept")
    return query.bundle.gain(concept)
