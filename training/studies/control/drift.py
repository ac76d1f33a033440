"""Side effects: how much the other concepts move while one concept's share is brought to a target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.measures.metrics import discounts
from training.studies.control import ways
from training.studies.control.operations import Doubles
from training.studies.control.scene import Scene
from training.studies.control.ways import Way
from training.studies.frontier.strength import LENGTH, Lists

RISES: dict[str, Way] = {"ADD": ways.added, "BOOST": ways.boosted, "tag boost": ways.lifted}


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


def drift(scene: Scene, label: str) -> dict[str, dict[str, Drift]]:
    """Each concept brought to its target of that label: by way and concept, without those not reached."""
    before = exposures(scene.audience.unsteered, scene.concepts.tags)
    found: dict[str, dict[str, Drift]] = {name: {} for name in RISES}
    for concept in scene.judged:
        for name, way in RISES.items() if label in concept.targets else ():
            lists = way(scene, concept.row, concept.targets[label])
            if lists is not None:
                moves = exposures(lists, scene.concepts.tags) - before
                others = tuple(other for other in scene.concepts.names if other != concept.name)
                found[name][concept.name] = Drift(others, np.delete(moves, concept.row, axis=1))
    return found


def exposures(lists: Lists, tags: NDArray[np.bool_]) -> Doubles:
    """Exposure share of every concept in every list: tags [n_concepts, n_items] -> [users, n_concepts]."""
    weights = discounts(LENGTH)
    return np.stack([flags[lists] @ (weights / weights.sum()) for flags in tags], axis=1)
