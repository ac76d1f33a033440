"""Suppression: each concept's share halved, beside leaving out as many of its items at random."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from training.studies.control import ways
from training.studies.control.operations import Doubles
from training.studies.control.scene import Scene
from training.studies.control.ways import Way
from training.studies.frontier.audience import exposure
from training.studies.frontier.tags import Concept

LEAST_SHARE = 0.02
"""Of a concept that is worth halving: mean exposure share, unsteered."""
_DRAWS = 5
FALLS: dict[str, Way] = {
    "ADD -x": ways.added,
    "CAP x": ways.capped,
    "neurons scaled down": ways.silenced,
    "lift -x": ways.lifted,
    "BOOST -x": ways.boosted,
    "each at most half: ADD, lift": lambda scene, row, _: ways.bounded(scene, row, 0.5),
    "each at most half: lift": lambda scene, row, _: ways.lowered_to(scene, row, 0.5),
}
"""Those with x have one for all users, so that the mean exposure share is half; others bound each list."""


class Halved(NamedTuple):
    """A concept whose share was halved, [users]: nDCG@20 unsteered, then, and with random ones left out.

    share is the mean exposure share that is left.
    """

    unsteered: Doubles
    ndcg: Doubles
    random: Doubles
    share: float


def frequent(scene: Scene) -> list[Concept]:
    """The judged concepts that are worth halving."""
    return [concept for concept in scene.judged if concept.share >= LEAST_SHARE]


def halve(scene: Scene, seed: int) -> dict[str, dict[str, Halved]]:
    """By way and concept; without those that a way cannot bring so far."""
    audience = scene.audience
    unsteered = audience.ndcg(audience.unsteered)
    found: dict[str, dict[str, Halved]] = {name: {} for name in FALLS}
    for concept in frequent(scene):
        flags = scene.concepts.tags[concept.row]
        before = flags[audience.unsteered].sum(axis=1)
        rng = np.random.default_rng([seed, concept.row])
        removed = partial(ways.randomly_removed, scene, concept.row, rng=rng, draws=_DRAWS)
        for name, way in FALLS.items():
            lists = way(scene, concept.row, concept.share / 2)
            if lists is not None:
                random = removed(before - flags[lists].sum(axis=1))
                left = float(exposure(lists, flags).mean())
                found[name][concept.name] = Halved(unsteered, audience.ndcg(lists), random, left)
    return found
