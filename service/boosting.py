"""BOOST: items move up, or down, through the user's own order, by how much of a concept they carry. Pure.

A place r of the unsteered order is worth 1 / log2(1 + r), the exposure that it gets. A boost of x adds x
times its gain to the worth of each item: by tags the gain is 1 for those that have it, else it is the
bundle's. What the item's score becomes is the score that is worth as much. So scores stay in their unit,
whatever the model's is, and what a boost added to one is a number: a reason.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Bools
from service.lines import Doubles
from service.query import Query
from service.ranking import discounts
from service.steering import Applied

PLACES = 160
"""Places whose worth is their own: deeper ones change no list that was measured."""
LEVELS = (1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Of gains: the best items of at least each of these are candidates, besides those that would be anyway."""


class Boost(NamedTuple):
    """A plan's boost: where it stands among the edits, the worth that it adds, and to which items.

    gain is of all items of the catalogue or of some: bool, or from 0 to 1.
    """

    position: int
    amount: float
    gain: AnyArray

    def of(self, items: AnyArray) -> "Boost":
        """The same, of some items."""
        return self._replace(gain=self.gain[items].astype(np.float64))

    def favoured(self) -> Iterator[Bools]:
        """Items that it leaves better off than all others: for gains between 0 and 1, at several levels."""
        for above in [self.gain] if self.gain.dtype == bool else [self.gain >= level for level in LEVELS]:
            yield above if self.amount > 0 else ~above


class Places:
    """What scores are worth to a user, and the scores of worths: both strictly rising, and straight lines.

    Between the scores of two places their worths are joined; above the first place and below the last the
    line goes on, rising as it does on the whole between that place and the middle one.

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
        Boost(position, edit.strength * fraction, _gain(query, edit.target.name))
        for position, (edit, fraction) in enumerate(query.plan.solved_edits(applied))
        if edit.is_boost and edit.strength * fraction
    ]


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
    middle = len(x) // 2
    below, above = (
        (y[b] - y[a]) / (x[b] - x[a]) if x[b] > x[a] else 1.0 for a, b in ((0, middle), (middle, -1))
    )
    beyond: Doubles = below * np.minimum(at - x[0], 0.0) + above * np.maximum(at - x[-1], 0.0)
    return np.interp(at, x, y) + beyond


def _gain(query: Query, name: str) -> AnyArray:
    concept = query.bundle.labels.concept(name)
    if concept is None:
        raise ValueError(f"a boost of {name!r}, which is no concept")
    return query.bundle.gain(concept)
