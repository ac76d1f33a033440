"""Held-out users, the nDCG of their lists, and the bases that a gain is added to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from training.arrays import Bools, Doubles, Floats, Ints
from training.measures.metrics import discounts
from training.run import Run
from training.studies.frontier.linear_scores import (
    LENGTH,
    LinearScores,
    Lists,
    SearchPoint,
    best_first,
    best_items,
    solve,
    top_n,
)
from training.studies.frontier.method_ids import Base
from training.studies.frontier.relevance import Relevance, places


class Users(NamedTuple):
    """Users' embeddings, scores and held-out items.

    z [users, d], scale(z) [users, 1], seen and wanted bool [users, n_items], lengths of the
    histories [users], base float32 and ranks int32 [users, n_items], the unsteered scores over
    scale(z) and their ranks (0 for seen items).
    """

    z: Floats
    scale: Floats
    seen: Bools
    wanted: Bools
    lengths: Ints
    base: Floats
    ranks: NDArray[np.int32]

    @classmethod
    def of(cls, run: Run, users: Ints) -> Self:
        """Reads the users' histories and scores every item for each."""
        histories = run.split.histories(users)
        z = run.recommender.activations(histories, run.config.max_length).z
        with torch.no_grad():
            scale = run.sae.scale(z)
            base = (run.recommender.scores(z) / scale).numpy()
        seen = histories.matrix(run.split.n_items).toarray() > 0
        base[seen] = -np.inf
        ranks = np.empty(base.shape, dtype=np.int32)
        order = np.argsort(-base, axis=1, kind="stable").astype(np.int32)
        np.put_along_axis(
            ranks, order, np.arange(1, base.shape[1] + 1, dtype=np.int32)[None], axis=1
        )
        ranks[seen] = 0
        wanted = run.split.targets(users).toarray() > 0
        return cls(z.numpy(), scale.numpy(), seen, wanted, histories.lengths, base, ranks)


@dataclass(frozen=True)
class Audience:
    """Users, what ranks are worth to them, and each base with its best items at strength 0."""

    users: Users
    relevance: Relevance
    bases: dict[str, Floats]
    best_at_0: dict[str, Lists]

    @classmethod
    def of(cls, users: Users, relevance: Relevance) -> Self:
        """Computes the bases of the users."""
        with np.errstate(divide="ignore"):
            rank = np.where(users.ranks > 0, 1 / np.log2(1.0 + users.ranks), -np.inf).astype(
                np.float32
            )
        bases: dict[str, Floats] = {
            Base.SCORE: users.base,
            Base.RANK: rank,
            Base.RELEVANCE: relevance.base(users.base, users.lengths),
        }
        bases[Base.PLACES] = places(users.base)
        return cls(
            users, relevance, bases, {name: best_items(base) for name, base in bases.items()}
        )

    @classmethod
    def tuned(cls, users: Users) -> Self:
        """Returns an audience of validation users, from whom the worth of ranks is learned."""
        return cls.of(users, Relevance.fit(users.ranks, users.wanted, users.lengths))

    @property
    def size(self) -> int:
        """Returns the number of users."""
        return len(self.users.z)

    @cached_property
    def unsteered(self) -> Lists:
        """Returns lists at strength 0, [users, 20]."""
        base = self.bases[Base.SCORE]
        return best_first(top_n(base, LENGTH), base)

    def ndcg(self, lists: Lists) -> Doubles:
        """Returns nDCG@20 on the users' held-out items, [users]."""
        hits = np.take_along_axis(self.users.wanted, lists, 1)
        ideal = np.concatenate([[0.0], np.cumsum(discounts(LENGTH))])
        best = ideal[np.minimum(self.users.wanted.sum(axis=1), LENGTH)]
        ndcg: Doubles = (hits @ discounts(LENGTH)) / best
        return ndcg

    def ceiling(self, flags: Bools) -> float:
        """Returns the mean exposure share of lists that hold flagged items [n_items] only."""
        sums = np.concatenate([[0.0], np.cumsum(discounts(LENGTH))])
        left = (flags & ~self.users.seen).sum(axis=1)
        return float(sums[np.minimum(left, LENGTH)].mean() / sums[-1])


def exposure(lists: Lists, flags: Bools) -> Doubles:
    """Returns the share of the discounted places that flagged items [n_items] hold, [users]."""
    weights = discounts(LENGTH)
    share: Doubles = (flags[lists] @ weights) / weights.sum()
    return share


def plain(lists: Lists, flags: Bools) -> Doubles:
    """Returns the share of the places that flagged items [n_items] hold, [users]."""
    share: Doubles = flags[lists].mean(axis=1)
    return share


def reach(
    scores: LinearScores, best_at_0: Lists, flags: Bools, targets: list[float]
) -> list[SearchPoint | None]:
    """Finds the strengths that bring the flagged items' mean exposure share to each target.

    The targets are ordered, the nearest to the unsteered share first. One strength holds for all
    users and is solved on the judged users' own lists: the share involves no target item, so
    nothing of what is judged is used, and all methods are compared at exactly the same share.
    """
    return solve(scores, lambda lists: float(exposure(lists, flags).mean()), targets, best_at_0)
