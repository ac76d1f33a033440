"""The frontier itself: each concept's share brought to targets by every method, on seen and hidden tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.studies.frontier.audience import Audience, exposure, plain
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.linear_scores import (
    Floats,
    LinearScores,
    Lists,
    SearchPoint,
    best_items,
    solve,
)
from training.studies.frontier.methods import METHODS, Gain, Gains, Method
from training.studies.frontier.tags import Concept, Concepts
from training.studies.frontier.target_shares import BASE, STRENGTHS, request_shares


class Setting(NamedTuple):
    """Who is judged on what: users, models, all concepts' tags, and the judged concepts with targets."""

    audience: Audience
    models: Models
    concepts: Concepts
    judged: list[Concept]

    @property
    def truth(self) -> Knowledge:
        """Knowledge of all tags."""
        return Knowledge(self.models, self.concepts.tags)


class Cell(NamedTuple):
    """One concept at one target by one method: nDCG@20 of each user, and mean figures of their lists."""

    ndcg: Floats
    exposure: float
    plain: float
    hidden: float


Cells = dict[tuple[str, str], Cell]
"""By concept and target label; without those that were not reached."""


def linear_of(
    audience: Audience, base: str, method: Method, gain: Gain
) -> tuple[LinearScores, Lists]:
    """A method's scores, and each user's best items at strength 0."""
    if gain.base is None:
        return LinearScores(
            audience.bases[base], gain.values, method.reorder, gain.limit
        ), audience.best_at_0[base]
    return LinearScores(gain.base, gain.values, method.reorder, gain.limit), best_items(gain.base)


def reach(
    audience: Audience,
    linear: LinearScores,
    best_at_0: Lists,
    flags: NDArray[np.bool_],
    targets: list[float],
) -> list[SearchPoint | None]:
    """Where a linear brings the flagged items' mean exposure share to each target, the nearest first.

    The strength is one for all users and is solved on the judged users' own lists: the share
    involves no target item, so nothing of what is judged is used, and all methods stand at exactly
    the same share.
    """
    return solve(linear, lambda lists: float(exposure(lists, flags).mean()), targets, best_at_0)


def frontier(
    setting: Setting,
    known: Knowledge,
    hidden: NDArray[np.bool_] | None = None,
    only: str | None = None,
    bases: tuple[str, ...] | None = None,
) -> Iterator[tuple[str, str, Cells]]:
    """(method, base, cells) of every method; the oracle alone knows all tags.

    hidden [n_concepts, n_items] flags what known lacks; only is the one target label to go to.
    """
    for name, method in METHODS.items():
        if hidden is not None and not method.on_hidden:
            continue
        gains = method.fit(setting.truth if method.oracle else known)
        for base in method.bases:
            if bases is None or base in bases or len(method.bases) == 1:
                points = partial(_by_strength, setting, base, method, gains)
                yield name, base, _cells(setting, hidden, only, points)
    for name in STRENGTHS:
        yield name, BASE, _cells(setting, hidden, only, partial(_by_request, setting, known, name))


Reach = Callable[[Concept, list[float]], list[SearchPoint | None]]
"""A concept's lists at target shares."""


def _by_strength(
    setting: Setting,
    base: str,
    method: Method,
    gains: Gains,
    concept: Concept,
    targets: list[float],
) -> list[SearchPoint | None]:
    linear, best_at_0 = linear_of(setting.audience, base, method, gains(concept.row))
    return reach(setting.audience, linear, best_at_0, setting.concepts.tags[concept.row], targets)


def _by_request(
    setting: Setting, known: Knowledge, way: str, concept: Concept, targets: list[float]
) -> list[SearchPoint | None]:
    flags = setting.concepts.tags[concept.row]
    return request_shares(setting.audience.bases[BASE], known, concept.row, flags, targets, way)


def _cells(
    setting: Setting, hidden: NDArray[np.bool_] | None, only: str | None, points: Reach
) -> Cells:
    cells: Cells = {}
    for concept in setting.judged:
        targets = {
            label: target for label, target in concept.targets.items() if only in (None, label)
        }
        if targets:
            flags = setting.concepts.tags[concept.row]
            unknown = np.zeros_like(flags) if hidden is None else hidden[concept.row]
            for label, point in zip(targets, points(concept, list(targets.values())), strict=True):
                if point is not None:
                    cells[concept.name, label] = _cell(
                        setting.audience, point.lists, flags, unknown
                    )
    return cells


def _cell(
    audience: Audience, lists: Lists, flags: NDArray[np.bool_], hidden: NDArray[np.bool_]
) -> Cell:
    return Cell(
        audience.ndcg(lists).astype(np.float32),
        float(exposure(lists, flags).mean()),
        float(plain(lists, flags).mean()),
        float(exposure(lists, hidden).mean()),
    )
