"""Candidates' scores as they depend on how far steering goes, and the lists on the way there. Pure.

A plan's change of z is a weighted sum of moves: what the edits of no target do together, and what those of
each of J targets do. Settings are the weights, float64 [1 + J + J]: of these moves, then the lifts that the
targets give to the items of their concepts. A boost has the weight of the move that its edit belongs to.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.boosting import Boost, Places, added
from service.bundle import Bundle
from service.encoding import UserState
from service.lines import Counts, Doubles, Lines, best, contenders, first_within, least_within

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
        is_linear: Whether scores are linear in the settings: the head is the identity, and nothing boosted.
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
        return moved + sum(part for _, part in self._boosted(moved, moves)) + self._sum(lifts, self._lifted)

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


class Way:
    """The scores and lists of n between two settings, at t = 0 and at t = 1.

    With an identity head they are exact. With another, each t is a run of the head, and what is looked for is
    found as if it were right from somewhere on to the end.
    """

    def __init__(self, field: Field, start: Doubles, end: Doubles, n: int) -> None:
        self._field, self._start, self._change, self._n = field, start, end - start, n
        self._rows: Ints = np.arange(len(field.items))
        if field.is_linear:
            self.lines = Lines(field.scores(start), field.change(self._change))
            self._rows = contenders(self.lines, n)
            self._leading = self.lines.take(self._rows)

    def scores(self, t: float) -> Doubles:
        """Of all items of the field: [m]."""
        if self._field.is_linear:
            return self.lines.at(t)
        return self._field.scores(self._start + t * self._change)

    def listed(self, t: float) -> Ints:
        """Rows of the field in order: [n]."""
        if self._field.is_linear:
            return self._rows[best(self._leading.at(t), self._n)]
        return best(self.scores(t), self._n)

    def first(self, members: Bools, counts: Counts, spans: Sequence[float]) -> tuple[float, bool]:
        """The least t with the right number of members, and True; else one with nearly so, and False.

        Args:
            members: bool [m].
            counts: What is right.
            spans: Powers of two up to 1, tried first.
        """
        misses = [(counts.miss(int(members[self.listed(0.0)].sum())), 0.0)]
        for span in spans:
            count = int(members[self.listed(span)].sum())
            if counts.hold(count):
                return self._first_until(span, members, counts), True
            misses.append((counts.miss(count), span))
        if self._field.is_linear:  # the number may have risen and fallen between the spans
            t = first_within(self._leading, members[self._rows], self._n, counts)
            if t is not None:
                return t, True
        return min(misses)[1], False

    def _first_until(self, span: float, members: Bools, counts: Counts) -> float:
        """The same, where it is known to be right at the span."""
        if self._field.is_linear:
            lines = self._leading.until(span)
            rows = contenders(lines, self._n)
            t = first_within(lines.take(rows), members[self._rows[rows]], self._n, counts)
            return span if t is None else t * span
        return least_within(lambda t: counts.hold(int(members[self.listed(t)].sum())), span, HEAD_STEPS)
