"""Candidates' scores as they depend on how far steering goes, and the lists on the way there. Pure.

A plan's change of z is a weighted sum of moves: what the edits of no target do together, and what
those of each of J targets do. Settings are the weights, float64 [1 + J + J]: of these moves, then
the lifts that the targets give to the items of their concepts. A boost has the weight of the move
that its edit belongs to.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.bundle.bundle import Bundle
from service.steering.boost import Boost, Places, added
from service.steering.solver.linear import Doubles
from service.steering.state import UserState

HEAD_STEPS = 2**10
"""Parts that a way through a nonlinear head is halved into: at most ten runs of the head."""


class Field:
    """Some items' scores as functions of the settings.

    Args:
        bundle: The models.
        state: The user's.
        moves: Changes of z, float32 [1 + J, d].
        concepts: Which items of the catalogue are of each target's concept: bool [n_items] each.
        boosts: At full strength, each with the move that it belongs to.
        items: int64 [m], ascending; with boosts, the best PLACES of the unsteered order among them.

    Attributes:
        plain: Unsteered scores, float32 [m].
        members: The same as concepts, of these items, bool [J, m].
        is_linear: Whether scores are linear in the settings: the head is the identity, and nothing
            boosted.
    """

    def __init__(
        self,
        bundle: Bundle,
        state: UserState,
        moves: Floats,
        concepts: Sequence[Bools],
        boosts: Sequence[tuple[int, Boost]],
        items: Ints,
    ) -> None:
        self._head, self._state, self._moves = bundle.encoder.head, state, moves
        self._has_head = bundle.encoder.has_head
        self._rows = bundle.items[items]
        self.items = items
        self.is_linear = not self._has_head and not boosts
        self.plain: Floats = self._run(np.zeros(len(moves)))
        self.members: Bools = np.array([carriers[items] for carriers in concepts], bool)
        gains = [] if self._has_head else [np.vecdot(self._rows[:, :-1], move) for move in moves]
        self._gains = [gain.astype(np.float64) for gain in gains]
        self._lifted = self.members.astype(np.float64)
        self._places = Places(self.plain) if boosts else None
        self._boosts = [(move, boost.of(items)) for move, boost in boosts]

    def scores(self, settings: Doubles, fraction: float = 1.0) -> Doubles:
        """At a fraction of the settings: [m]."""
        if self.is_linear:
            return self.plain + fraction * self.change(settings)
        moves, lifts = np.split(fraction * settings, [len(self._moves)])
        moved = self._moved(moves)
        return (
            moved
            + sum(part for _, part in self._boosted(moved, moves))
            + self._sum(lifts, self._lifted)
        )

    def change(self, settings: Doubles) -> Doubles:
        """What comes to the scores, where they are linear: [m]."""
        return self._sum(settings, (*self._gains, *self._lifted))

    def boosted(self, settings: Doubles, fraction: float) -> tuple[tuple[int, Doubles], ...]:
        """What each boost adds to the scores, [m], with its edit's position in the plan."""
        moves = fraction * settings[: len(self._moves)]
        return tuple(self._boosted(self._moved(moves), moves))

    def _moved(self, moves: Doubles) -> Doubles:
        if self._has_head:
            return self._run(moves).astype(np.float64)
        return self.plain + self._sum(moves, self._gains)

    def _boosted(self, scores: Doubles, moves: Doubles) -> Iterator[tuple[int, Doubles]]:
        if self._places is not None:
            parts = ((moves[move], boost) for move, boost in self._boosts)
            boosts = [boost._replace(amount=part * boost.amount) for part, boost in parts if part]
            for boost, part in zip(boosts, added(self._places, scores, boosts), strict=True):
                yield boost.position, part

    def _sum(self, weights: Doubles, gains: Sequence[Doubles] | Doubles) -> Doubles:
        """Item by item, so that equal items stay equal."""
        total = np.zeros(len(self.items))
        for weight, gain in zip(weights.tolist(), gains, strict=True):
            if weight:
                total += weight * gain
        return total

    def _run(self, weights: Doubles) -> Floats:
        moved = self._state.z + weights.astype(np.float32) @ self._moves
        query = self._head(moved[None], self._state.context)[0]
        scores: Floats = np.vecdot(self._rows, np.append(query, np.float32(1.0)))
        return scores
