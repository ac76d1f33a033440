"""Follows scores and lists along the path between two strengths. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import Bools, Doubles, Ints
from service.steering.plan import Counts
from service.steering.solver.linear import (
    LinearScores,
    contenders,
    first_within,
    least_within,
    top_n,
)
from service.steering.solver.scores import HEAD_STEPS, CandidateScores
from service.steering.solver.strengths import Strengths


class PathPosition(NamedTuple):
    """A position t on a path, and whether the list there has the right number of members."""

    t: float
    is_met: bool


class StrengthPath:
    """The scores and lists between the strengths start, at t = 0, and end, at t = 1.

    With linear scores they are exact. Otherwise each t is a run of the head, and a property that
    holds at a tried t is assumed to hold from some t on up to there.

    Args:
        scores: Scores of the candidates.
        start: Strengths at t = 0.
        end: Strengths at t = 1.
        n: Length of the list.
    """

    def __init__(self, scores: CandidateScores, start: Strengths, end: Strengths, n: int) -> None:
        self._scores = scores
        self._start = start
        self._change = end.minus(start)
        self._n = n
        self._rows: Ints = np.arange(len(scores.items))
        if scores.is_linear:
            lines = LinearScores(scores.at(start), scores.change(self._change))
            self._rows = contenders(lines, n)
            self._leading = lines.take(self._rows)

    def listed(self, t: float) -> Ints:
        """Returns the candidates' rows in the list at t, in order: [n]."""
        if self._scores.is_linear:
            return self._rows[top_n(self._leading.at(t), self._n)]
        return top_n(self._at(t), self._n)

    def first(self, members: Bools, counts: Counts, spans: Sequence[float]) -> PathPosition:
        """Finds the least t at which the list has the right number of members.

        If there is none, returns the tried t with the smallest error.

        Args:
            members: bool [m], over the candidates.
            counts: The right numbers.
            spans: Powers of two up to 1, ascending: the values of t that are tried first.
        """
        errors = [(counts.miss(self._count(0.0, members)), 0.0)]
        for span in spans:
            count = self._count(span, members)
            if counts.hold(count):
                return PathPosition(self._first_until(span, members, counts), True)
            errors.append((counts.miss(count), span))
        if self._scores.is_linear:  # the number may have risen and fallen between the spans
            t = first_within(self._leading, members[self._rows], self._n, counts)
            if t is not None:
                return PathPosition(t, True)
        return PathPosition(min(errors)[1], False)

    def _at(self, t: float) -> Doubles:
        return self._scores.at(self._start.plus(self._change, t))

    def _count(self, t: float, members: Bools) -> int:
        return int(members[self.listed(t)].sum())

    def _first_until(self, span: float, members: Bools, counts: Counts) -> float:
        """Finds the least t at which the number is right; at the span it is."""
        if self._scores.is_linear:
            lines = self._leading.until(span)
            rows = contenders(lines, self._n)
            t = first_within(lines.take(rows), members[self._rows[rows]], self._n, counts)
            return span if t is None else t * span
        return least_within(lambda t: counts.hold(self._count(t, members)), span, HEAD_STEPS)
