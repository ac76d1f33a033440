"""Lifts: what target shares add to the scores of their concept's items."""

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.engine.query import Query
from service.steering.plan import Applied, TargetShare


def lifts(query: Query, applied: Applied, items: Ints) -> list[Floats]:
    """What each target that lifts its concept's items adds to the scores of some items: float32 [m]."""
    return [
        np.float32(applied.fraction * strength.lift) * _carriers(query, target)[items]
        for target, strength in zip(query.plan.targets, applied.targets, strict=False)
        if strength.lift
    ]


def lifted_items(query: Query, applied: Applied) -> list[Bools]:
    """For each target that lifts, or lowers, the items that this leaves better off: bool [n_items]."""
    return [
        _carriers(query, target) ^ (strength.lift < 0)
        for target, strength in zip(query.plan.targets, applied.targets, strict=False)
        if strength.lift
    ]


def _carriers(query: Query, target: TargetShare) -> Bools:
    return query.bundle.catalogue.members(target.concept.attribute, target.concept.value)
