"""Two concepts at once: both shares are brought to targets, at a cost compared with each alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from training.arrays import Bools, Doubles
from training.studies.control.halving import frequent
from training.studies.control.method_ids import ControlMethod
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure, reach
from training.studies.frontier.effects import reach_both
from training.studies.frontier.linear_scores import LinearScores, SearchPoint
from training.studies.frontier.method_ids import Base
from training.studies.frontier.tags import Concept

UnitScores = Callable[[Setting, int, np.float32], LinearScores]
"""Returns the scores of a concept (a row) with a strength that counts up (1) or down (-1)."""
UNITS: dict[ControlMethod, UnitScores] = {
    ControlMethod.ADD: lambda own, row, sign: own.linear(sign * own.directions[row]),
    ControlMethod.LIFT: lambda own, row, sign: own.linear(sign * own.concepts.tags[row]),
    ControlMethod.BOOST: lambda own, row, sign: own.linear(
        sign * own.concepts.tags[row], base=Base.PLACES
    ),
}
_MOST = 5
"""Most frequent concepts that are paired: pairs grow with its square."""
_RAISED = "0.3"


class Pair(NamedTuple):
    """Two concepts: how far their mean shares fall short, and nDCG@20 lost by both and by each."""

    names: tuple[str, str]
    short: float
    loss: Doubles
    single_losses: tuple[Doubles, Doubles]


class _Single(NamedTuple):
    """One concept with its target; point is None if the method does not reach it."""

    concept: Concept
    target: float
    scores: LinearScores
    flags: Bools
    point: SearchPoint | None


def raised_together(setting: Setting) -> dict[ControlMethod, list[Pair | None]]:
    """Brings pairs of the most frequent concepts with a share below 0.3 both to 0.3: by method."""
    raised = [concept for concept in setting.judged if _RAISED in concept.targets][:_MOST]
    targets = [(concept, 0.3) for concept in raised]
    return {name: _pairs(setting, targets, unit, 1.0) for name, unit in UNITS.items()}


def halved_together(setting: Setting) -> dict[ControlMethod, list[Pair | None]]:
    """Halves both shares of pairs of the most frequent concepts: by method; None if not reached."""
    targets = [(concept, concept.share / 2) for concept in frequent(setting)[:_MOST]]
    return {name: _pairs(setting, targets, unit, -1.0) for name, unit in UNITS.items()}


def _pairs(
    setting: Setting, targets: list[tuple[Concept, float]], unit: UnitScores, sign: float
) -> list[Pair | None]:
    singles = []
    for concept, target in targets:
        scores = unit(setting, concept.row, np.float32(sign))
        flags = setting.concepts.tags[concept.row]
        (point,) = reach(scores, setting.best_at_0, flags, [target])
        singles.append(_Single(concept, target, scores, flags, point))
    return [_pair(setting, one, two, sign) for one, two in itertools.combinations(singles, 2)]


def _pair(setting: Setting, one: _Single, two: _Single, sign: float) -> Pair | None:
    if one.point is None or two.point is None:
        return None
    audience = setting.audience
    lists = reach_both(
        audience,
        (one.scores, two.scores),
        (one.flags, two.flags),
        (one.target, two.target),
        (one.point.t, two.point.t),
    )
    if lists is None:
        return None
    unsteered = audience.ndcg(audience.unsteered)
    short = max(
        sign * (own.target - float(exposure(lists, own.flags).mean())) for own in (one, two)
    )
    return Pair(
        names=(one.concept.name, two.concept.name),
        short=max(short, 0.0),
        loss=unsteered - audience.ndcg(lists),
        single_losses=(
            unsteered - audience.ndcg(one.point.lists),
            unsteered - audience.ndcg(two.point.lists),
        ),
    )
