"""What requests do that ask for a least share of each list: the service's own way of steering.

The weakest ADD of the concept that gives a list as many of its items as were asked for; where the
strongest is not enough, a number is added to the score of each of its items, as large as the share
needs (a lift).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.concepts.effect import typical_unit
from training.studies.frontier.audience import exposure
from training.studies.frontier.knowledge import Knowledge
from training.studies.frontier.linear_scores import (
    LENGTH,
    Doubles,
    Floats,
    Lists,
    SearchPoint,
    best_first,
    top_n,
)

LARGEST_UNITS = 1.0
"""Typical units: the strongest ADD that a target share brings in the service."""
STRENGTHS = {
    "target share": np.linspace(0.0, LARGEST_UNITS, 17),
    "target share, lift alone": np.zeros(1),
}
"""Strengths of the ADD that are tried, by way, weakest first."""
BASE = "score"
"""What they add to: requests move the query, and with it the scores."""
_STEPS = 16
_CLOSE = 2e-4


class ShareRequests(NamedTuple):
    """A concept's lists: under each ADD [rungs, users, 20], and what the strongest leaves to be lifted.

    counts [rungs, users] are the concept's items in the lists; ours and others the best items with
    and without the concept under the strongest ADD, best first, [users, 20], with their scores,
    -inf where there is none. dither [users], between 0 and 1, says who gets the whole item that
    others lack.
    """

    rungs: Lists
    counts: NDArray[np.int64]
    ours: Lists
    others: Lists
    our_scores: Doubles
    other_scores: Doubles
    dither: Doubles

    @classmethod
    def of(
        cls, base: Floats, direction: Floats, flags: NDArray[np.bool_], strengths: Doubles
    ) -> ShareRequests:
        """Scores base [users, n_items] over scale(z); direction [n_items] is what ADD of 1 adds to them."""
        rungs = np.empty((len(strengths), len(base), LENGTH), dtype=np.int64)
        for row, strength in enumerate(strengths):
            scores = base + np.float32(strength) * direction
            rungs[row] = best_first(top_n(scores, LENGTH), scores)
        kinds = [np.where(flags == of_ours, scores, -np.inf) for of_ours in (True, False)]
        ours, others = (best_first(top_n(kind, LENGTH), kind) for kind in kinds)
        our_scores, other_scores = (
            np.take_along_axis(kind, items, 1).astype(np.float64)
            for kind, items in zip(kinds, (ours, others), strict=True)
        )
        dither = np.random.default_rng(len(base)).permutation(len(base)) / len(base)
        counts = flags[rungs].sum(axis=2)
        return cls(rungs, counts, ours, others, our_scores, other_scores, dither)

    def lists(self, share: float) -> Lists:
        """Lists of at least share x 20 of the concept's items; a part of an item is some users' whole one."""
        asked = np.floor(share * LENGTH + self.dither).astype(np.int64)
        enough = self.counts >= asked
        users = np.arange(len(asked))
        lists: Lists = self.rungs[np.argmax(enough, axis=0), users]
        short = np.flatnonzero(~enough.any(axis=0))
        if len(short):
            lists[short] = self._lifted(short, asked[short])
        return lists

    def _lifted(self, users: NDArray[np.int64], asked: NDArray[np.int64]) -> Lists:
        """The last that is needed of the concept comes to stand just above the first other that gives way."""
        have = np.isfinite(self.our_scores[users]).sum(axis=1)
        needed = np.minimum(asked, have)
        rows = np.arange(len(users))
        last = self.our_scores[users][rows, np.maximum(needed, 1) - 1]
        first = self.other_scores[users][rows, np.minimum(LENGTH - needed, LENGTH - 1)]
        lift = np.where(
            (needed > 0) & np.isfinite(first), np.maximum(first - last, 0.0) + 1e-9, 0.0
        )
        items = np.concatenate([self.ours[users], self.others[users]], axis=1)
        scores = np.concatenate(
            [self.our_scores[users] + lift[:, None], self.other_scores[users]], axis=1
        )
        return np.take_along_axis(items, best_first(top_n(scores, LENGTH), scores), 1)


def request_shares(
    base: Floats,
    known: Knowledge,
    row: int,
    flags: NDArray[np.bool_],
    targets: list[float],
    way: str,
) -> list[SearchPoint | None]:
    """Asks every user for the share that brings the flagged items' mean exposure to each target.

    The requests know the tags that known has; flags [n_items] are all. The strength of the points
    is the share asked for.
    """
    models = known.models
    weights = known.contrast(models.neurons)[row]
    levels = models.user_codes @ weights / max(float(weights @ weights), 1e-12)
    unit = typical_unit(levels.astype(np.float64))
    direction = weights @ models.neurons.W_dec @ models.item_matrix.T
    requests = ShareRequests.of(base, direction, known.tags[row], unit * STRENGTHS[way])
    return [_solve(requests, flags, target) for target in targets]


def _solve(requests: ShareRequests, flags: NDArray[np.bool_], target: float) -> SearchPoint | None:
    low, high = 0.0, 1.0
    if exposure(requests.lists(high), flags).mean() < target:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        excess = exposure(requests.lists(middle), flags).mean() - target
        if abs(excess) < _CLOSE:
            return SearchPoint(middle, requests.lists(middle))
        low, high = (low, middle) if excess >= 0 else (middle, high)
    return SearchPoint(high, requests.lists(high))
