"""Side effects: how much the other concepts move while one concept's share is brought to a target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.measures.metrics import discounts
from training.studies.control import methods
from training.studies.control.methods import Method
from training.studies.control.operations import Doubles
from training.studies.control.setting import Setting
from training.studies.frontier.linear_scores import LENGTH, Lists

RISES: dict[str, Method] = {
    "ADD": methods.added,
    "BOOST": methods.boosted,
    "tag boost": methods.lifted,
}


class Drift(NamedTuple):
    """One concept raised: the others' names, and the change of their exposure shares, [users, others]."""

    others: tuple[str, ...]
    moves: Doubles

    @property
    def distance(self) -> Doubles:
        """Of each user, so that the mean over users is the mean over the others of |their mean move|."""
        distance: Doubles = (self.moves * np.sign(self.moves.mean(axis=0))).mean(axis=1)
        return distance

    @property
    def furthest(self) -> tuple[str, float]:
        """The other concept that moves most, and its mean move."""
        means = self.moves.mean(axis=0)
        most = int(np.abs(means).argmax())
        return self.others[most], float(means[most])


def drift(setting: Setting, label: str) -> dict[str, dict[str, Drift]]:
    """Each concept brought to its target of that label: by way and concept, without those not reached."""
    before = exposures(setting.audience.unsteered, setting.concepts.tags)
    found: dict[str, dict[str, Drift]] = {name: {} for name in RISES}
    for concept in setting.judged:
        for name, way in RISES.items() if label in concept.targets else ():
            lists = way(setting, concept.row, concept.targets[label])
            if lists is not None:
                moves = exposures(lists, setting.concepts.tags) - before
                others = tuple(other for other in setting.concepts.names if other != concept.name)
                found[name][concept.name] = Drift(others, np.delete(moves, concept.row, axis=1))
    return found


def exposures(lists: Lists, tags: NDArray[np.bool_]) -> Doubles:
    """Exposure share of every concept in every list: tags [n_concepts, n_items] -> [users, n_concepts]."""
    weights = discounts(LENGTH)
    return np.stack([flags[lists] @ (weights / weights.sum()) for flags in tags], axis=1)
