"""What steering can move, and where along it candidates are searched for. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import Floats
from service.lines import Doubles
from service.query import Plan, TargetShare
from service.reply import Steered

HEAD_ANCHORS = (1 / 16, 1 / 4)
"""Where, besides its end, candidates are searched for on the way of a move through a nonlinear head."""


class Anchors(NamedTuple):
    """Settings at whose queries candidates are searched for: [a, 1 + 2 J]; the first is no steering.

    Attributes:
        base: The row where no target moves anything.
        of: (j, sign) -> the row where only target j does, as far as it may.
    """

    settings: Doubles
    base: int
    of: dict[tuple[int, float], int]


def anchors_of(targets: Sequence[TargetShare], moves: Floats, has_head: bool) -> Anchors:
    """Of moves [1 + J, d]: no steering, the edits of no target, and each target at each end of its way."""
    plain = np.zeros(1 + 2 * len(targets))
    base = plain.copy()
    base[0] = 1.0
    rows, of = [plain, base] if moves[0].any() else [plain], {}
    base_row = len(rows) - 1
    for j, target in enumerate(targets):
        for sign in target.signs:
            of[j, sign] = len(rows)
            rows.append(base.copy())
            rows[-1][1 + j] = sign
    if has_head:
        rows += [part * end for end in rows[1:] for part in HEAD_ANCHORS]
    return Anchors(np.array(rows), base_row, of)


def moves_of(plan: Plan, whole: Steered, d: int) -> Floats:
    """What the edits of no target change, with a reconstruction, and what each target's do: [1 + J, d]."""
    move_of = {position: 1 + j for j, target in enumerate(plan.targets) for position in target.edits}
    moves = np.zeros((1 + len(plan.targets), d), np.float32)
    for position, part in enumerate(whole.parts):
        moves[move_of.get(position, 0)] += part
    if whole.reconstruction is not None:
        moves[0] += whole.reconstruction
    return moves
