"""Computes candidates' scores as functions of the steering's strengths. Pure.

The change of z is a weighted sum of moves: move 0 holds the edits that belong to no target, move
1 + j those of target j. A boost has the weight of the move that its edit belongs to. Lifts are
added to the scores of the items of their target's concept.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from service.arrays import Bools, Doubles, Floats, Ints
from service.steering.boost import Places, added
from service.steering.solver.problem import Problem
from service.steering.solver.strengths import Strengths

HEAD_STEPS = 2**10
"""Parts into which a path is divided if scores are not linear: at most ten runs of the head.

A larger number finds smaller strengths, and takes more runs.
"""


class CandidateScores:
    """Scores of some items under any strengths.

    Args:
        problem: The request.
        moves: Changes of z, float32 [1 + J, d].
        items: Item indices, int64 [m], ascending; with boosts, the best PLACES of the unsteered
            order are among them.

    Attributes:
        items: The same.
        plain: Unsteered scores, float32 [m].
        members: For each target, which of these items are of its concept: bool [J, m].
        is_linear: Whether scores are linear in the strengths: an identity head and no boost.
    """

    def __init__(self, problem: Problem, moves: Floats, items: Ints) -> None:
        self._head = problem.model.head
        self._has_head = problem.model.has_head
        self._state = problem.state
        self._moves = moves
        self._rows = problem.items[items]
        self.items = items
        self.is_linear = not self._has_head and not problem.boosts
        self.plain: Floats = self._run(np.zeros(len(moves)))
        self.members: Bools = np.array([t.members[items] for t in problem.targets], bool)
        self._slopes = [] if self._has_head else self._move_slopes()
        self._lifted = self.members.astype(np.float64)
        self._places = Places(self.plain) if problem.boosts else None
        move_of = problem.move_of_edit if problem.boosts else {}
        self._boosts = [
            (move_of.get(boost.position, 0), boost.of(items)) for boost in problem.boosts
        ]

    def at(self, strengths: Strengths, fraction: float = 1.0) -> Doubles:
        """Computes the scores at a fraction of the strengths: [m]."""
        if self.is_linear:
            return self.plain + fraction * self.change(strengths)
        scaled = strengths.scaled(fraction)
        moved = self._moved(scaled.moves)
        boosts = sum(part for _, part in self._boosted(moved, scaled.moves))
        return moved + boosts + self._sum(scaled.lifts, self._lifted)

    def change(self, strengths: Strengths) -> Doubles:
        """Computes what the strengths add to the scores, if these are linear: [m]."""
        return self._sum(strengths.values, (*self._slopes, *self._lifted))

    def boosted(self, strengths: Strengths, fraction: float) -> tuple[tuple[int, Doubles], ...]:
        """Computes what each boost adds, [m], with its edit's position in the plan."""
        moves = fraction * strengths.moves
        return tuple(self._boosted(self._moved(moves), moves))

    def _move_slopes(self) -> list[Doubles]:
        """Computes each move's effect on the scores behind an identity head: [m] each."""
        vectors = self._rows[:, :-1]
        return [np.vecdot(vectors, move).astype(np.float64) for move in self._moves]

    def _moved(self, moves: Doubles) -> Doubles:
        """Computes the scores that the moves of z alone give: [m]."""
        if self._has_head:
            return self._run(moves).astype(np.float64)
        return self.plain + self._sum(moves, self._slopes)

    def _boosted(self, scores: Doubles, moves: Doubles) -> Iterator[tuple[int, Doubles]]:
        if self._places is None:
            return
        weighted = ((moves[move], boost) for move, boost in self._boosts)
        boosts = [
            boost._replace(amount=weight * boost.amount) for weight, boost in weighted if weight
        ]
        for boost, part in zip(boosts, added(self._places, scores, boosts), strict=True):
            yield boost.position, part

    def _sum(self, weights: Doubles, parts: Sequence[Doubles] | Doubles) -> Doubles:
        """Sums weighted parts [m] element by element, so that equal items keep equal scores."""
        total = np.zeros(len(self.items))
        for weight, part in zip(weights.tolist(), parts, strict=True):
            if weight:
                total += weight * part
        return total

    def _run(self, weights: Doubles) -> Floats:
        """Runs the head at a weighted sum of moves and scores the items: [m]."""
        moved = self._state.z + weights.astype(np.float32) @ self._moves
        query = self._head(moved[None], self._state.context)[0]
        scores: Floats = np.vecdot(self._rows, np.append(query, np.float32(1.0)))
        return scores
