"""Two concepts at once: both shares brought to targets, and the cost beside that of each alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from training.studies.control.halving import frequent
from training.studies.control.operations import Doubles
from training.studies.control.scene import Scene
from training.studies.frontier.audience import exposure
from training.studies.frontier.effects import both
from training.studies.frontier.seen import reach
from training.studies.frontier.strength import Line
from training.studies.frontier.tags import Concept

LINES: dict[str, Callable[[Scene, int, np.float32], Line]] = {
    "ADD": lambda scene, row, sign: scene.line(sign * scene.directions[row]),
    "lift": lambda scene, row, sign: scene.line(sign * scene.concepts.tags[row]),
    "BOOST": lambda scene, row, sign: scene.line(sign * scene.concepts.tags[row], base="places"),
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


def raised_together(scene: Scene) -> dict[str, list[Pair | None]]:
    """Pairs of the most frequent concepts whose share is below .3, both brought to .3: by way."""
    chosen = [(concept, 0.3) for concept in scene.judged if _RAISED in concept.targets][:_MOST]
    return {name: _pairs(scene, chosen, line, np.float32(1)) for name, line in LINES.items()}


def halved_together(scene: Scene) -> dict[str, list[Pair | None]]:
    """Pairs of the most frequent concepts, both shares halved: by way; None for those not reached."""
    chosen = [(concept, concept.share / 2) for concept in frequent(scene)[:_MOST]]
    return {name: _pairs(scene, chosen, line, np.float32(-1)) for name, line in LINES.items()}


def _pairs(
    scene: Scene,
    chosen: list[tuple[Concept, float]],
    line_of: Callable[[Scene, int, np.float32], Line],
    sign: np.float32,
) -> list[Pair | None]:
    audience = scene.audience
    unsteered = audience.ndcg(audience.unsteered)
    lines = [line_of(scene, concept.row, sign) for concept, _ in chosen]
    flags = [scene.concepts.tags[concept.row] for concept, _ in chosen]
    targets = [target for _, target in chosen]
    alone = [
        reach(audience, line, scene.near_0, own, [target])[0]
        for line, own, target in zip(lines, flags, targets, strict=True)
    ]
    found: list[Pair | None] = []
    for one, two in itertools.combinations(range(len(chosen)), 2):
        first, second = alone[one], alone[two]
        lists = None
        if first is not None and second is not None:
            start, wanted = (first.t, second.t), (targets[one], targets[two])
            lists = both(
                audience, (lines[one], lines[two]), (flags[one], flags[two]), wanted, start
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
