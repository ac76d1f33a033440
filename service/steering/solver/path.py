"""The path of scores between two strengths."""

from collections.abc import Sequence

import numpy as np

from service.arrays import Bools, Ints
from service.steering.plan import Counts
from service.steering.solver.linear import (
    Doubles,
    Lines,
    best,
    contenders,
    first_within,
    least_within,
)
from service.steering.solver.scores import HEAD_STEPS, Field


class Way:
    """The scores and lists of n between two settings, at t = 0 and at t = 1.

    With an identity head they are exact. With another, each t is a run of the head, and what is
    looked for is found as if it were right from somewhere on to the end.
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
        return least_within(
            lambda t: counts.hold(int(members[self.listed(t)].sum())), span, HEAD_STEPS
        )
