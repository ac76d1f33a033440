"""Chooses the judged concepts, their target shares, and the tags that are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.arrays import Bools, Ints
from training.concepts.membership import memberships
from training.errors import DataError
from training.run import Run
from training.studies.frontier.audience import Audience, exposure

ABSOLUTE = (0.3, 0.5, 0.7)
"""Target shares of frequent concepts."""
RELATIVE = (2.0, 4.0)
"""Target shares of rare concepts, as factors of the unsteered share."""
_LEAST_ITEMS = 60
"""Items from which a concept gets the absolute targets."""
_LEAST_CEILING = 0.9
"""Share of the lists that a concept must be able to fill to get the absolute targets."""
_STRATUM = 10
"""Items, alike in popularity, of which the same share is hidden."""


class Concept(NamedTuple):
    """A judged concept: its row among the tags, unsteered exposure share, and targets by label."""

    name: str
    row: int
    share: float
    targets: dict[str, float]


class Concepts(NamedTuple):
    """Names, and tags bool [n_concepts, n_items]."""

    names: tuple[str, ...]
    tags: Bools


def concepts_of(run: Run, most: int) -> Concepts:
    """Returns the most frequent attribute values of a run, none on more than half of the items.

    Raises:
        DataError: if no attribute value is on enough items.
    """
    members = memberships(run.catalogue, run.config.concepts)
    rows = np.flatnonzero(members.item_counts <= run.catalogue.n_items / 2)
    if not len(rows):
        raise DataError(
            f"{run.path}: no attribute value is on enough items and on at most half of them"
        )
    rows = rows[np.argsort(-members.item_counts[rows], kind="stable")][:most]
    return Concepts(tuple(members.names[row] for row in rows), members.matrix[rows].toarray() > 0)


def judged(concepts: Concepts, audience: Audience) -> list[Concept]:
    """Returns each concept with the targets that it can be asked for, without those that have none.

    0.3, 0.5 and 0.7 for concepts of at least 60 items that could fill 0.9 of the lists, else 2 and
    4 times the unsteered share.
    """
    lists = audience.unsteered
    chosen = []
    for row, name in enumerate(concepts.names):
        flags = concepts.tags[row]
        share = float(exposure(lists, flags).mean())
        ceiling = audience.ceiling(flags)
        if flags.sum() >= _LEAST_ITEMS and ceiling >= _LEAST_CEILING:
            targets = {f"{target:g}": target for target in ABSOLUTE if target > share + 0.02}
        else:
            targets = {f"{factor:g} x": factor * share for factor in RELATIVE if share > 0}
        targets = {label: target for label, target in targets.items() if target < 0.95 * ceiling}
        if targets:
            chosen.append(Concept(name, row, share, targets))
    return chosen


def middle(concepts: Sequence[Concept]) -> str:
    """Returns the label for side effects: 0.5, or 4 times the share if concepts are rare."""
    labels = [label for concept in concepts for label in concept.targets]
    return "0.5" if labels.count("0.5") >= labels.count("4 x") else "4 x"


def hide(tags: Bools, popularity: Ints, share: float, rng: np.random.Generator) -> Bools:
    """Flags tags to hide: a random share of every ten of a concept's items, alike in popularity."""
    hidden = np.zeros_like(tags)
    for row, flags in enumerate(tags):
        items = np.flatnonzero(flags)
        items = items[np.argsort(-popularity[items], kind="stable")]
        stratum = np.arange(len(items)) // _STRATUM
        drawn = np.lexsort((rng.random(len(items)), stratum))
        place = np.arange(len(items)) % _STRATUM
        size = np.bincount(stratum)[stratum]
        hidden[row, items[drawn[place < np.round(share * size)]]] = True
    return hidden
