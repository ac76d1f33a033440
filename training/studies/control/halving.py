"""Suppression: each concept's share is halved, compared with removing as many items at random."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from training.arrays import Doubles
from training.studies.control import methods
from training.studies.control.method_ids import ControlMethod
from training.studies.control.methods import Method
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure
from training.studies.frontier.tags import Concept

LEAST_SHARE = 0.02
"""Unsteered mean exposure share from which a concept is halved."""
_DRAWS = 5
"""Random removals that are averaged."""
FALLS: dict[ControlMethod, Method] = {
    ControlMethod.ADD_DOWN: methods.added,
    ControlMethod.CAP: methods.capped,
    ControlMethod.NEURONS_DOWN: methods.silenced,
    ControlMethod.LIFT_DOWN: methods.lifted,
    ControlMethod.BOOST_DOWN: methods.boosted,
    ControlMethod.HALF_BY_ADD_AND_LIFT: lambda setting, row, _: methods.bounded(setting, row, 0.5),
    ControlMethod.HALF_BY_LIFT: lambda setting, row, _: methods.lowered_to(setting, row, 0.5),
}
"""Methods with one strength for all users, so that the mean share is half; the last two bound each
list."""


class Halved(NamedTuple):
    """A concept whose share was halved: nDCG@20 [users] unsteered, halved, and by random removal.

    share is the mean exposure share that is left.
    """

    unsteered: Doubles
    ndcg: Doubles
    random: Doubles
    share: float


def frequent(setting: Setting) -> list[Concept]:
    """Returns the judged concepts that are frequent enough to be halved."""
    return [concept for concept in setting.judged if concept.share >= LEAST_SHARE]


def halve(setting: Setting, seed: int) -> dict[ControlMethod, dict[str, Halved]]:
    """Halves each share by each method that can: returns results by method and concept."""
    audience = setting.audience
    unsteered = audience.ndcg(audience.unsteered)
    halved: dict[ControlMethod, dict[str, Halved]] = {name: {} for name in FALLS}
    for concept in frequent(setting):
        flags = setting.concepts.tags[concept.row]
        before = flags[audience.unsteered].sum(axis=1)
        rng = np.random.default_rng([seed, concept.row])
        removed = partial(methods.randomly_removed, setting, concept.row, rng=rng, draws=_DRAWS)
        for name, method in FALLS.items():
            lists = method(setting, concept.row, concept.share / 2)
            if lists is not None:
                halved[name][concept.name] = Halved(
                    unsteered=unsteered,
                    ndcg=audience.ndcg(lists),
                    random=removed(before - flags[lists].sum(axis=1)),
                    share=float(exposure(lists, flags).mean()),
                )
    return halved
