"""Suppression with missing tags: methods that know some of the items halve the whole share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from training.arrays import Doubles, Floats
from training.studies.control.halving import frequent
from training.studies.control.method_ids import ControlMethod
from training.studies.control.setting import Setting
from training.studies.frontier.audience import reach
from training.studies.frontier.calibration import completed
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.method_ids import Base
from training.studies.frontier.tags import hide

HIDDEN = 0.5
"""Share of each concept's tags that is hidden from the methods, equally at every popularity."""


class _Gains(NamedTuple):
    """A unit of a method's strength for each item, [n_concepts, n_items], and the base."""

    method: ControlMethod
    base: Base
    values: Floats


def halve_hidden(
    setting: Setting, rng: np.random.Generator
) -> dict[ControlMethod, dict[str, Doubles | None]]:
    """Halves the share of all of a concept's items: returns nDCG@20 lost [users].

    By method and concept; None where a method cannot: items that it does not know take the places
    of those that it removes.
    """
    audience = setting.audience
    tags = setting.concepts.tags
    unsteered = audience.ndcg(audience.unsteered)
    shown = tags & ~hide(tags, setting.run.catalogue.popularity, HIDDEN, rng)
    known = Knowledge(Models.of(setting.run, audience.users), shown)
    lost: dict[ControlMethod, dict[str, Doubles | None]] = {}
    for gains in _gains(setting, known):
        lost[gains.method] = {}
        for concept in frequent(setting):
            scores = setting.linear(-gains.values[concept.row], base=gains.base)
            flags = tags[concept.row]
            (point,) = reach(scores, setting.best_at_0, flags, [concept.share / 2])
            own = None if point is None else unsteered - audience.ndcg(point.lists)
            lost[gains.method][concept.name] = own
    return lost


def _gains(setting: Setting, known: Knowledge) -> Iterator[_Gains]:
    models = known.models
    tagged = known.tags.astype(np.float32)
    added = setting.moved(known.contrast(models.neurons))
    means = known.contrast(models.dense) @ models.item_matrix.T
    spread_added, spread_tagged = (np.std(part, axis=1, keepdims=True) for part in (added, tagged))
    alike = added / spread_added + tagged / np.maximum(spread_tagged, 1e-12)
    gains = known.ridge("dense")
    whole = completed(gains, known.tags, models.fitted)
    yield _Gains(ControlMethod.ADD_DOWN, Base.SCORE, added)
    yield _Gains(ControlMethod.DIFFERENCE_OF_MEANS_DOWN, Base.SCORE, means)
    yield _Gains(ControlMethod.LIFT_DOWN, Base.SCORE, tagged)
    yield _Gains(ControlMethod.ADD_AND_LIFT, Base.SCORE, alike)
    yield _Gains(ControlMethod.LIFT_BY_COMPLETED_TAGS_DOWN, Base.SCORE, whole)
    yield _Gains(ControlMethod.BOOST_DOWN, Base.PLACES, tagged)
    yield _Gains(ControlMethod.BOOST_BY_GAINS_DOWN, Base.PLACES, gains)
