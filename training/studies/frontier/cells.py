"""The frontier's cells: each concept's share brought to its targets by every method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from training.arrays import Bools, Doubles, Floats
from training.studies.frontier.audience import Audience, exposure, plain, reach
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.linear_scores import LinearScores, Lists, SearchPoint, best_items
from training.studies.frontier.method_ids import Base, Variant
from training.studies.frontier.methods import METHODS, Gains
from training.studies.frontier.tags import Concept, Concepts
from training.studies.frontier.target_shares import BASE, STRENGTHS, request_shares


class Setting(NamedTuple):
    """The users, the models, all concepts' tags, and the judged concepts with their targets."""

    audience: Audience
    models: Models
    concepts: Concepts
    judged: list[Concept]

    @property
    def truth(self) -> Knowledge:
        """Returns the knowledge of all tags."""
        return Knowledge(self.models, self.concepts.tags)

    def flags(self, concept: Concept) -> Bools:
        """Returns the items that carry a concept, bool [n_items]."""
        flags: Bools = self.concepts.tags[concept.row]
        return flags


class CellKey(NamedTuple):
    """A concept and the label of a target."""

    concept: str
    label: str


class Cell(NamedTuple):
    """One concept at one target by one method: nDCG@20 of each user, and means over their lists."""

    ndcg: Floats
    exposure: float
    plain: float
    hidden: float


Cells = dict[CellKey, Cell]
"""The cells of a method; targets that it did not reach are missing."""


class VariantCells(NamedTuple):
    """A variant's cells."""

    variant: Variant
    cells: Cells


class SearchLine(NamedTuple):
    """Scores that are linear in the strength, and each user's best items at strength 0."""

    scores: LinearScores
    best_at_0: Lists


def search_line(audience: Audience, variant: Variant, gains: Gains, row: int) -> SearchLine:
    """Returns the scores of a variant for the concept in a row of the tags."""
    gain = gains(row)
    reorder = METHODS[variant.method].reorder
    if gain.base is not None:
        scores = LinearScores(gain.base, gain.values, reorder, gain.limit)
        return SearchLine(scores, best_items(gain.base))
    scores = LinearScores(audience.bases[variant.base], gain.values, reorder, gain.limit)
    return SearchLine(scores, audience.best_at_0[variant.base])


def frontier(
    setting: Setting,
    known: Knowledge,
    hidden: Bools | None = None,
    only: str | None = None,
    bases: tuple[Base, ...] | None = None,
) -> Iterator[VariantCells]:
    """Yields the cells of every variant; the oracle alone knows all tags.

    Args:
        setting: the users, models and concepts.
        known: the tags that are shown to the methods.
        hidden: [n_concepts, n_items], flags the tags that known lacks.
        only: the label of the only target to reach; None for all.
        bases: the bases of methods that have several; None for all.
    """
    for method_id, method in METHODS.items():
        if hidden is not None and not method.on_hidden:
            continue
        gains = method.fit(setting.truth if method.oracle else known)
        for base in method.bases:
            if bases is None or base in bases or len(method.bases) == 1:
                variant = method_id.on(base)
                points = partial(_by_strength, setting, variant, gains)
                yield VariantCells(variant, _cells(setting, hidden, only, points))
    for method_id, strengths in STRENGTHS.items():
        points = partial(_by_request, setting, known, strengths)
        yield VariantCells(method_id.on(BASE), _cells(setting, hidden, only, points))


Reach = Callable[[Concept, list[float]], list[SearchPoint | None]]
"""Returns a concept's lists at target shares."""


def _by_strength(
    setting: Setting, variant: Variant, gains: Gains, concept: Concept, targets: list[float]
) -> list[SearchPoint | None]:
    line = search_line(setting.audience, variant, gains, concept.row)
    return reach(line.scores, line.best_at_0, setting.flags(concept), targets)


def _by_request(
    setting: Setting,
    known: Knowledge,
    strengths: Doubles,
    concept: Concept,
    targets: list[float],
) -> list[SearchPoint | None]:
    base = setting.audience.bases[BASE]
    return request_shares(
        base, known, concept.row, setting.flags(concept), targets, strengths=strengths
    )


def _cells(setting: Setting, hidden: Bools | None, only: str | None, points: Reach) -> Cells:
    cells: Cells = {}
    for concept in setting.judged:
        targets = {
            label: target for label, target in concept.targets.items() if only in (None, label)
        }
        if not targets:
            continue
        flags = setting.flags(concept)
        unknown = np.zeros_like(flags) if hidden is None else hidden[concept.row]
        for label, point in zip(targets, points(concept, list(targets.values())), strict=True):
            if point is not None:
                key = CellKey(concept.name, label)
                cells[key] = _cell(setting.audience, point.lists, flags, unknown)
    return cells


def _cell(audience: Audience, lists: Lists, flags: Bools, hidden: Bools) -> Cell:
    return Cell(
        ndcg=audience.ndcg(lists).astype(np.float32),
        exposure=float(exposure(lists, flags).mean()),
        plain=float(plain(lists, flags).mean()),
        hidden=float(exposure(lists, hidden).mean()),
    )
