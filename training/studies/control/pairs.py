"""Two concepts at once: both shares brought to targets, and the cost beside that of each alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from training.studies.control.halving import frequent
from training.studies.control.operations import Doubles
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure, reach
from training.studies.frontier.effects import reach_both
from training.studies.frontier.linear_scores import LinearScores
from training.studies.frontier.tags import Concept

LINES: dict[str, Callable[[Setting, int, np.float32], LinearScores]] = {
    "ADD": lambda setting, row, sign: setting.linear(sign * setting.directions[row]),
    "lift": lambda setting, row, sign: setting.linear(sign * setting.concepts.tags[row]),
    "BOOST": lambda setting, row, sign: setting.linear(
        sign * setting.concepts.tags[row], base="places"
    ),
}
"""A strength of one, up or down."""
_MOST = 5
_RAISED = "0.3"


class Pair(NamedTuple):
    """Two concepts: how far the mean exposure shares fall short; nDCG@20 lost by both, and by each alone."""

    names: tuple[str, str]
    short: float
    loss: Doubles
    single_losses: tuple[Doubles, Doubles]


def raised_together(setting: Setting) -> dict[str, list[Pair | None]]:
    """Pairs of the most frequent concepts whose share is below .3, both brought to .3: by way."""
    chosen = [(concept, 0.3) for concept in setting.judged if _RAISED in concept.targets][:_MOST]
    return {name: _pairs(setting, chosen, linear, np.float32(1)) for name, linear in LINES.items()}


def halved_together(setting: Setting) -> dict[str, list[Pair | None]]:
    """Pairs of the most frequent concepts, both shares halved: by way; None for those not reached."""
    chosen = [(concept, concept.share / 2) for concept in frequent(setting)[:_MOST]]
    return {name: _pairs(setting, chosen, linear, np.float32(-1)) for name, linear in LINES.items()}


def _pairs(
    setting: Setting,
    chosen: list[tuple[Concept, float]],
    linear_of: Callable[[Setting, int, np.float32], LinearScores],
    sign: np.float32,
) -> list[Pair | None]:
    audience = setting.audience
    unsteered = audience.ndcg(audience.unsteered)
    scores = [linear_of(setting, concept.row, sign) for concept, _ in chosen]
    flags = [setting.concepts.tags[concept.row] for concept, _ in chosen]
    targets = [target for _, target in chosen]
    alone = [
        reach(linear, setting.best_at_0, own, [target])[0]
        for linear, own, target in zip(scores, flags, targets, strict=True)
    ]
    found: list[Pair | None] = []
    for one, two in itertools.combinations(range(len(chosen)), 2):
        first, second = alone[one], alone[two]
        lists = None
        if first is not None and second is not None:
            start, wanted = (first.t, second.t), (targets[one], targets[two])
            lists = reach_both(
                audience, (scores[one], scores[two]), (flags[one], flags[two]), wanted, start
            )
        if first is None or second is None or lists is None:
            found.append(None)
            continue
        short = max(
            float(sign) * (targets[row] - float(exposure(lists, flags[row]).mean()))
            for row in (one, two)
        )
        losses = (unsteered - audience.ndcg(first.lists), unsteered - audience.ndcg(second.lists))
        names = (chosen[one][0].name, chosen[two][0].name)
        found.append(Pair(names, max(short, 0.0), unsteered - audience.ndcg(lists), losses))
    return found
