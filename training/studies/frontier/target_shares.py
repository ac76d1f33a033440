"""Requests for a least share of each list: what the service does with a target share.

The service takes the weakest ADD of the concept that gives a list the asked number of its items;
where the strongest is not enough, a number is added to the score of each of its items, as large as
the share needs (a lift).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.arrays import Bools, Doubles, Floats, Ints
from training.concepts.effect import typical_unit
from training.studies.frontier.audience import exposure
from training.studies.frontier.knowledge import Knowledge
from training.studies.frontier.linear_scores import LENGTH, Lists, SearchPoint, best_first, top_n
from training.studies.frontier.method_ids import Base, MethodId

LARGEST_UNITS = 1.0
"""Strength of the strongest ADD that a target share uses in the service, in TYPICAL units."""
STRENGTHS = {
    MethodId.TARGET_SHARE: np.linspace(0.0, LARGEST_UNITS, 17),
    MethodId.TARGET_SHARE_LIFT_ALONE: np.zeros(1),
}
"""Strengths of the ADD that are tried, weakest first, in TYPICAL units."""
BASE = Base.SCORE
"""Requests move the query, and with it the scores."""
_STEPS = 16
_CLOSE = 2e-4
"""Distance from the target at which the bisection stops, in exposure share."""


class ShareRequests(NamedTuple):
    """A concept's lists under each ADD, [strengths, users, 20], and the items to lift.

    counts [strengths, users] are the concept's items in the lists. members and others are the best
    items with and without the concept under the strongest ADD, best first, [users, 20], with their
    scores, -inf where there is no item. dither [users], between 0 and 1, decides which users get a
    whole item where the share asks for a part of one.
    """

    added: Lists
    counts: Ints
    members: Lists
    others: Lists
    member_scores: Doubles
    other_scores: Doubles
    dither: Doubles

    @classmethod
    def of(cls, base: Floats, direction: Floats, flags: Bools, strengths: Doubles) -> ShareRequests:
        """Prepares the lists of all users.

        Args:
            base: [users, n_items], the scores over scale(z).
            direction: [n_items], what ADD of strength 1 adds to them.
            flags: [n_items], the items that carry the concept.
            strengths: in units of the code, weakest first.
        """
        added = np.empty((len(strengths), len(base), LENGTH), dtype=np.int64)
        for row, strength in enumerate(strengths):
            scores = base + np.float32(strength) * direction
            added[row] = best_first(top_n(scores, LENGTH), scores)
        with_it = np.where(flags, scores, -np.inf)
        without = np.where(flags, -np.inf, scores)
        members = best_first(top_n(with_it, LENGTH), with_it)
        others = best_first(top_n(without, LENGTH), without)
        return cls(
            added=added,
            counts=flags[added].sum(axis=2),
            members=members,
            others=others,
            member_scores=np.take_along_axis(with_it, members, 1).astype(np.float64),
            other_scores=np.take_along_axis(without, others, 1).astype(np.float64),
            dither=np.random.default_rng(len(base)).permutation(len(base)) / len(base),
        )

    def lists(self, share: float) -> Lists:
        """Returns lists with at least share x 20 of the concept's items, [users, 20].

        A part of an item becomes a whole one for that part of the users.
        """
        asked = np.floor(share * LENGTH + self.dither).astype(np.int64)
        enough = self.counts >= asked
        users = np.arange(len(asked))
        lists: Lists = self.added[np.argmax(enough, axis=0), users]
        short = np.flatnonzero(~enough.any(axis=0))
        if len(short):
            lists[short] = self._lifted(short, asked[short])
        return lists

    def _lifted(self, users: Ints, asked: Ints) -> Lists:
        """Lifts the last needed member just above the first other item that leaves the list."""
        available = np.isfinite(self.member_scores[users]).sum(axis=1)
        needed = np.minimum(asked, available)
        rows = np.arange(len(users))
        last = self.member_scores[users][rows, np.maximum(needed, 1) - 1]
        first = self.other_scores[users][rows, np.minimum(LENGTH - needed, LENGTH - 1)]
        applies = (needed > 0) & np.isfinite(first)
        lift = np.where(applies, np.maximum(first - last, 0.0) + 1e-9, 0.0)
        items = np.concatenate([self.members[users], self.others[users]], axis=1)
        scores = np.concatenate(
            [self.member_scores[users] + lift[:, None], self.other_scores[users]], axis=1
        )
        return np.take_along_axis(items, best_first(top_n(scores, LENGTH), scores), 1)


def request_shares(
    base: Floats,
    known: Knowledge,
    row: int,
    flags: Bools,
    targets: list[float],
    strengths: Doubles,
) -> list[SearchPoint | None]:
    """Finds the share to ask every user for that brings the mean exposure to each target.

    The strength of the returned points is the share asked for.

    Args:
        base: [users, n_items], the scores over scale(z).
        known: the tags that requests know.
        row: the concept's row among the tags.
        flags: [n_items], all items that carry the concept, by which the exposure is measured.
        targets: mean exposure shares.
        strengths: of the ADD that are tried, in TYPICAL units.
    """
    models = known.models
    weights = known.contrast(models.neurons)[row]
    levels = models.user_codes @ weights / max(float(weights @ weights), 1e-12)
    unit = typical_unit(levels.astype(np.float64))
    direction = weights @ models.neurons.W_dec @ models.item_matrix.T
    requests = ShareRequests.of(base, direction, known.tags[row], unit * strengths)
    return [_solve(requests, flags, target) for target in targets]


def _solve(requests: ShareRequests, flags: Bools, target: float) -> SearchPoint | None:
    low = 0.0
    high = 1.0
    if exposure(requests.lists(high), flags).mean() < target:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        excess = exposure(requests.lists(middle), flags).mean() - target
        if abs(excess) < _CLOSE:
            return SearchPoint(middle, requests.lists(middle))
        if excess >= 0:
            high = middle
        else:
            low = middle
    return SearchPoint(high, requests.lists(high))
