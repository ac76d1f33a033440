"""Suppression: each concept's share halved, beside leaving out as many of its items at random."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from training.studies.control import methods
from training.studies.control.methods import Method
from training.studies.control.operations import Doubles
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure
from training.studies.frontier.tags import Concept

LEAST_SHARE = 0.02
"""Of a concept that is worth halving: mean exposure share, unsteered."""
_DRAWS = 5
FALLS: dict[str, Method] = {
    "ADD -x": methods.added,
    "CAP x": methods.capped,
    "neurons scaled down": methods.silenced,
    "lift -x": methods.lifted,
    "BOOST -x": methods.boosted,
    "each at most half: ADD, lift": lambda setting, row, _: methods.bounded(setting, row, 0.5),
    "each at most half: lift": lambda setting, row, _: methods.lowered_to(setting, row, 0.5),
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


def frequent(setting: Setting) -> list[Concept]:
    """The judged concepts that are worth halving."""
    return [concept for concept in setting.judged if concept.share >= LEAST_SHARE]


def halve(setting: Setting, seed: int) -> dict[str, dict[str, Halved]]:
    """By way and concept; without those that a way cannot bring so far."""
    audience = setting.audience
    unsteered = audience.ndcg(audience.unsteered)
    found: dict[str, dict[str, Halved]] = {name: {} for name in FALLS}
    for concept in frequent(setting):
        flags = setting.concepts.tags[concept.row]
        before = flags[audience.unsteered].sum(axis=1)
        rng = np.random.default_rng([seed, concept.row])
        removed = partial(methods.randomly_removed, setting, concept.row, rng=rng, draws=_DRAWS)
        for name, way in FALLS.items():
            lists = way(setting, concept.row, concept.share / 2)
            if lists is not None:
                random = removed(before - flags[lists].sum(axis=1))
                left = float(exposure(lists, flags).mean())
                found[name][concept.name] = Halved(unsteered, audience.ndcg(lists), random, left)
    return found
