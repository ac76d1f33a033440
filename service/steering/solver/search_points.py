"""Chooses the strengths at which candidates are searched for, and bounds other items' scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import Doubles, Floats
from service.steering.plan import TargetShare
from service.steering.solver.strengths import Strengths

PARTS = (1 / 4, 1 / 2, 1.0)
"""Fractions of a target's largest strength at which candidates are searched for.

A few candidates at several points prove more than many at one point, at a lower cost.
"""

HEAD_PARTS = (1 / 16, 1 / 4)
"""Further fractions of all moves at which candidates are searched for if there is a head."""


class PathPoint(NamedTuple):
    """Strengths on a path, and the largest score of an item outside the candidates there.

    The bound is None if nothing bounds those scores.
    """

    strengths: Strengths
    bound: float | None


class SearchPoints(NamedTuple):
    """The strengths at whose queries candidates are searched for.

    Attributes:
        values: float64 [a, 1 + 2 J], see Strengths; the first row is no steering.
        base: The row at which no target moves anything.
        along: The rows at which only target j moves anything, in direction sign, for each
            (j, sign): not at all, and by each of PARTS.
    """

    values: Doubles
    base: int
    along: dict[tuple[int, float], list[int]]

    @property
    def moves(self) -> Doubles:
        """Weights of the moves of z: [a, 1 + J]."""
        return self.values[:, : 1 + self.values.shape[1] // 2]

    @property
    def strengths(self) -> list[Strengths]:
        """The strengths of each row."""
        return [Strengths(row) for row in self.values]

    def bound(self, targets: Sequence[float], cuts: Sequence[float]) -> float | None:
        """Bounds the score of an item that is no candidate; None if the strengths exceed 1 in sum.

        Scores are linear in the strengths, so the largest score of any set of items is convex in
        them. Between two search points it lies below the line through their cuts, and where several
        targets move, below the mix of what each would reach alone.

        Args:
            targets: Strength of each target, -1 to 1.
            cuts: Score of each search point's last candidate; no other item exceeds it there.
        """
        total = sum(map(abs, targets))
        if total > 1.0:
            return None
        if total == 0.0:
            return cuts[self.base]
        bound = 0.0
        for j, strength in enumerate(targets):
            if strength:
                along = [cuts[row] for row in self.along[j, np.sign(strength)]]
                bound += abs(strength) / total * float(np.interp(total, (0.0, *PARTS), along))
        return bound


def search_points(targets: Sequence[TargetShare], moves: Floats, *, has_head: bool) -> SearchPoints:
    """Chooses the search points for J targets whose moves of z are float32 [1 + J, d]."""
    plain = np.zeros(1 + 2 * len(targets))
    base = plain.copy()
    base[0] = 1.0
    rows = [plain, base] if moves[0].any() else [plain]
    base_row = len(rows) - 1
    along: dict[tuple[int, float], list[int]] = {}
    for j, target in enumerate(targets):
        for sign in target.signs:
            along[j, sign] = [base_row, *range(len(rows), len(rows) + len(PARTS))]
            for part in PARTS:
                rows.append(base.copy())
                rows[-1][1 + j] = sign * part
    if has_head:
        last_rows = [base_row, *(of_target[-1] for of_target in along.values())]
        rows += [part * rows[end] for end in last_rows if end for part in HEAD_PARTS]
    return SearchPoints(np.array(rows), base_row, along)


def stops(start: float, end: float) -> list[float]:
    """Lists both ends of a target's path, and the search points between them, in order."""
    low, high = sorted((start, end))
    between = [stop for part in PARTS for stop in (part, -part) if low < stop < high]
    return sorted((start, *between, end), reverse=start > end)
