"""Gains from filled-in tags: 1 for the tagged, part of the probability for the others."""

from __future__ import annotations

import numpy as np

from training.arrays import Bools, Floats
from training.studies.frontier.audience import Audience, reach
from training.studies.frontier.calibration import completed
from training.studies.frontier.knowledge import Knowledge
from training.studies.frontier.linear_scores import LinearScores
from training.studies.frontier.method_ids import Base
from training.studies.frontier.tags import Concepts, judged

WEIGHTS = (1.0, 0.85, 0.7, 0.5, 0.25, 0.0)
"""Weights of an untagged item's probability, of which the largest that costs nothing is taken."""


def filled(known: Knowledge, weight: float) -> Floats:
    """Returns gains in [0, 1], [n_concepts, n_items]."""
    carried = completed(known.ridge("dense"), known.tags, known.models.fitted)
    return np.where(known.tags, 1.0, weight * carried).astype(np.float32)


def choose_weight(known: Knowledge) -> float:
    """Chooses the weight for all concepts, on validation users and by the tags that are shown.

    It is the largest whose nDCG@20, over concepts and targets, is no lower than with the tags alone
    added to the rank transform; 0 without such a weight, so that inference never harms.

    Raises:
        ValueError: if the models come without validation users.
    """
    audience = known.models.validation
    if audience is None:
        raise ValueError("models: expected validation users to choose the weight on, found none")
    concepts = Concepts(tuple(map(str, range(len(known.tags)))), known.tags)
    targets = {
        concept.row: list(concept.targets.values()) for concept in judged(concepts, audience)
    }
    plain = _ndcg(audience, Base.RANK, known.tags.astype(np.float32), known.tags, targets)
    for weight in WEIGHTS:
        ndcg = _ndcg(audience, Base.RELEVANCE, filled(known, weight), known.tags, targets)
        shared = [key for key in ndcg if key in plain]
        if shared and np.mean([ndcg[key] - plain[key] for key in shared]) >= 0:
            return weight
    return WEIGHTS[-1]


def _ndcg(
    audience: Audience,
    base: str,
    columns: Floats,
    tags: Bools,
    targets: dict[int, list[float]],
) -> dict[tuple[int, float], float]:
    """Returns the mean nDCG@20 of each concept at each target that its column reaches."""
    ndcg = {}
    for row, wanted in targets.items():
        scores = LinearScores(audience.bases[base], columns[row])
        points = reach(scores, audience.best_at_0[base], tags[row], wanted)
        for target, point in zip(wanted, points, strict=True):
            if point is not None:
                ndcg[row, target] = float(audience.ndcg(point.lists).mean())
    return ndcg
