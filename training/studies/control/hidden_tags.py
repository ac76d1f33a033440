"""Suppression where tags are missing: the whole share halved by ways that know some of the items only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from training.studies.control.halving import frequent
from training.studies.control.operations import Doubles
from training.studies.control.setting import Setting
from training.studies.frontier.audience import reach
from training.studies.frontier.calibration import completed
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.linear_scores import Floats
from training.studies.frontier.tags import hide

HIDDEN = 0.5
"""Of each concept's tags, equally at every popularity; the methods are fitted without them."""


def halve_hidden(
    setting: Setting, rng: np.random.Generator
) -> dict[str, dict[str, Doubles | None]]:
    """NDCG@20 lost [users] with the share of all of a concept's items halved: by way and concept.

    None where a way cannot: items that it does not know take the places of those that it removes.
    """
    audience, tags = setting.audience, setting.concepts.tags
    unsteered = audience.ndcg(audience.unsteered)
    shown = tags & ~hide(tags, setting.run.catalogue.popularity, HIDDEN, rng)
    found: dict[str, dict[str, Doubles | None]] = {}
    for name, base, gains in _ways(
        setting, Knowledge(Models.of(setting.run, audience.users), shown)
    ):
        found[name] = {}
        for concept in frequent(setting):
            linear, flags = setting.linear(-gains[concept.row], base=base), tags[concept.row]
            (point,) = reach(linear, setting.best_at_0, flags, [concept.share / 2])
            found[name][concept.name] = (
                None if point is None else unsteered - audience.ndcg(point.lists)
            )
    return found


def _ways(setting: Setting, known: Knowledge) -> Iterator[tuple[str, str, Floats]]:
    """A way's name, its base, and what a unit of strength adds to it for each item, [n_concepts, n_items]."""
    models, tagged = known.models, known.tags.astype(np.float32)
    added = setting.moved(known.contrast(models.neurons))
    dense = known.contrast(models.dense) @ models.item_matrix.T
    spread = [np.std(part, axis=1, keepdims=True) for part in (added, tagged)]
    gains = known.ridge("dense")
    yield "ADD -x", "score", added
    yield "difference of means -x", "score", dense
    yield "lift -x", "score", tagged
    yield (
        "ADD and lift, alike in spread",
        "score",
        added / spread[0] + tagged / np.maximum(spread[1], 1e-12),
    )
    yield "lift by completed tags -x", "score", completed(gains, known.tags, models.fitted)
    yield "BOOST -x", "places", tagged
    yield "BOOST by gains -x", "places", gains
