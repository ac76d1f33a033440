"""Side effects: how much other concepts move while one concept's share is brought to a target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.arrays import Bools, Doubles
from training.measures.metrics import discounts
from training.studies.control import methods
from training.studies.control.method_ids import ControlMethod
from training.studies.control.methods import Method
from training.studies.control.setting import Setting
from training.studies.frontier.linear_scores import LENGTH, Lists

RISES: dict[ControlMethod, Method] = {
    ControlMethod.ADD: methods.added,
    ControlMethod.BOOST: methods.boosted,
    ControlMethod.TAG_BOOST: methods.lifted,
}


class Move(NamedTuple):
    """The other concept that moves most, and its mean move."""

    concept: str
    mean: float


class Drift(NamedTuple):
    """One concept raised: the others' names, and their exposure shares' moves, [users, others]."""

    others: tuple[str, ...]
    moves: Doubles

    @property
    def distance(self) -> Doubles:
        """Returns a figure for each user whose mean is the others' mean |mean move|, [users]."""
        distance: Doubles = (self.moves * np.sign(self.moves.mean(axis=0))).mean(axis=1)
        return distance

    @property
    def furthest(self) -> Move:
        """Returns the other concept that moves most."""
        means = self.moves.mean(axis=0)
        most = int(np.abs(means).argmax())
        return Move(self.others[most], float(means[most]))


def drift(setting: Setting, label: str) -> dict[ControlMethod, dict[str, Drift]]:
    """Brings each concept to its target of a label: returns results by method and concept.

    Targets that a method does not reach are left out.
    """
    tags = setting.concepts.tags
    before = exposures(setting.audience.unsteered, tags)
    drifts: dict[ControlMethod, dict[str, Drift]] = {name: {} for name in RISES}
    for concept in setting.judged:
        if label not in concept.targets:
            continue
        others = tuple(other for other in setting.concepts.names if other != concept.name)
        for name, method in RISES.items():
            lists = method(setting, concept.row, concept.targets[label])
            if lists is not None:
                moves = np.delete(exposures(lists, tags) - before, concept.row, axis=1)
                drifts[name][concept.name] = Drift(others, moves)
    return drifts


def exposures(lists: Lists, tags: Bools) -> Doubles:
    """Returns every concept's exposure share: tags [n_concepts, n_items] -> [users, n_concepts]."""
    weights = discounts(LENGTH)
    return np.stack([flags[lists] @ (weights / weights.sum()) for flags in tags], axis=1)
