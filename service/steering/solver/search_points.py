"""What steering can move, where on its ways candidates are searched for, and what others score at most. Pure.

Settings are as in field.py: how far each target's edits are used, beside what the edits of no
target do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import Floats
from service.steering.plan import Plan, TargetShare
from service.steering.solver.linear import Doubles
from service.steering.steer import Steered

PARTS = (1 / 4, 1 / 2, 1.0)
"""Of a target's largest strength: few candidates of several places prove more than many of one, for less."""


HEAD_ANCHORS = (1 / 16, 1 / 4)
"""Where, besides its end, candidates are searched for on the way of all moves through a nonlinear head."""


class Mark(NamedTuple):
    """Settings on a way, float64 [1 + 2 J], and what an item outside the field scores there at most."""

    settings: Doubles
    bound: float | None


class Anchors(NamedTuple):
    """Settings at whose queries candidates are searched for: [a, 1 + 2 J]; the first is no steering.

    Attributes:
        base: The row where no target moves anything.
        of: (j, sign) -> the rows where only target j moves anything: not at all, and by each of
            PARTS.
    """

    settings: Doubles
    base: int
    of: dict[tuple[int, float], list[int]]

    def bound(self, strengths: Sequence[float], cuts: Sequence[float]) -> float | None:
        """What an item outside the field scores at most; None where strengths add up to more than one.

        Scores are linear in the settings, so the largest of any items is convex in them: between
        two anchors it lies below the line, and where several targets move below the mix of what
        each would do alone.

        Args:
            strengths: Of each target, -1 to 1.
            cuts: Each anchor's last candidate's score, which an item outside does not exceed.
        """
        total = sum(map(abs, strengths))
        if total > 1.0:
            return None
        if total == 0.0:
            return cuts[self.base]
        bound = 0.0
        for j, strength in enumerate(strengths):
            if strength:
                along = [cuts[row] for row in self.of[j, np.sign(strength)]]
                bound += abs(strength) / total * float(np.interp(total, (0.0, *PARTS), along))
        return bound


def anchors_of(targets: Sequence[TargetShare], moves: Floats, has_head: bool) -> Anchors:
    """The anchors of a plan whose moves are float32 [1 + J, d]."""
    plain = np.zeros(1 + 2 * len(targets))
    base = plain.copy()
    base[0] = 1.0
    rows, of = [plain, base] if moves[0].any() else [plain], {}
    base_row = len(rows) - 1
    for j, target in enumerate(targets):
        for sign in target.signs:
            of[j, sign] = [base_row, *range(len(rows), len(rows) + len(PARTS))]
            for part in PARTS:
                rows.append(base.copy())
                rows[-1][1 + j] = sign * part
    if has_head:
        ends = [row for row in (base_row, *(of_sign[-1] for of_sign in of.values())) if row]
        rows += [part * rows[end] for end in ends for part in HEAD_ANCHORS]
    return Anchors(np.array(rows), base_row, of)


def stops(start: float, end: float) -> list[float]:
    """Both ends of a target's way, and the anchors between them, in order."""
    low, high = sorted((start, end))
    between = [stop for part in PARTS for stop in (part, -part) if low < stop < high]
    return sorted((start, *between, end), reverse=start > end)


def moves_by_edit(plan: Plan) -> dict[int, int]:
    """Which move an edit belongs to, by its position; those of no target belong to move 0."""
    return {position: 1 + j for j, target in enumerate(plan.targets) for position in target.edits}


def moves_of(plan: Plan, whole: Steered, d: int) -> Floats:
    """What the edits of no target change, with a reconstruction, and what each target's do: [1 + J, d]."""
    move_of = moves_by_edit(plan)
    moves = np.zeros((1 + len(plan.targets), d), np.float32)
    for position, part in enumerate(whole.parts):
        moves[move_of.get(position, 0)] += part
    if whole.reconstruction is not None:
        moves[0] += whole.reconstruction
    return moves
