"""Defines what is solved for one request: its plan, the user, the model, and how to search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.steering.boost import Boost
from service.steering.plan import Plan, TargetShare
from service.steering.state import UserState
from service.steering.steer import Steered


class Model(Protocol):
    """What the solver reads of a recommender's encoder."""

    @property
    def has_head(self) -> bool:
        """Whether the head is more than the identity."""

    def head(self, z: Floats, context: Floats) -> Floats:
        """Computes the queries [m, p] of user embeddings [m, d] in one context."""


class Search(Protocol):
    """Finds items that the request allows."""

    def __call__(self, queries: Floats, n: int, among: Bools | None) -> Ints:
        """Finds, for each query [m, p], at least the n best items: ascending indices, each once.

        Args:
            queries: float32 [m, p].
            n: How many items each query needs.
            among: bool [n_items]; None searches among all items.
        """


def _no_lap(_stage: str) -> None:
    """Measures nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One request whose steering strength is to be found.

    Attributes:
        plan: Has targets, a budget, or both.
        n: Length of the list.
        state: The user's state.
        whole: The steering at full strength.
        model: The recommender.
        items: [V | b], float32 [n_items, p + 1].
        boosts: The plan's boosts at full strength, over the whole catalogue.
        compares: Whether the unsteered list is needed as well.
        search: Finds allowed items.
        lap: Called with the name of a stage when a part of the work ends; measures time.
    """

    plan: Plan
    n: int
    state: UserState
    whole: Steered
    model: Model
    items: Floats
    boosts: Sequence[Boost]
    compares: bool
    search: Search
    lap: Callable[[str], None] = field(default=_no_lap)

    @property
    def targets(self) -> tuple[TargetShare, ...]:
        """The target shares, J of them."""
        return self.plan.targets

    @property
    def move_of_edit(self) -> dict[int, int]:
        """The move of each edit that belongs to a target, by the edit's position in the plan.

        Edits that belong to no target make up move 0.
        """
        return {
            position: 1 + j for j, target in enumerate(self.targets) for position in target.edits
        }

    def moves(self) -> Floats:
        """Sums the changes of z by move, float32 [1 + J, d].

        Move 0 has the edits of no target, and a reconstruction; move 1 + j the edits of target j.
        """
        move_of = self.move_of_edit
        moves = np.zeros((1 + len(self.targets), len(self.state.z)), np.float32)
        for position, part in enumerate(self.whole.parts):
            moves[move_of.get(position, 0)] += part
        if self.whole.reconstruction is not None:
            moves[0] += self.whole.reconstruction
        return moves
