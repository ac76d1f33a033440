"""Computes lifts: numbers that target shares add to the scores of their concept's items."""

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.steering.plan import Applied, Plan


def lifts(plan: Plan, applied: Applied, items: Ints) -> list[Floats]:
    """Computes what each target that lifts adds to the scores of m items: float32 [m] each."""
    return [
        np.float32(applied.fraction * strength.lift) * target.members[items]
        for target, strength in zip(plan.targets, applied.targets, strict=False)
        if strength.lift
    ]


def lifted_items(plan: Plan, applied: Applied) -> list[Bools]:
    """Returns, for each target that lifts, the items that gain by it: bool [n_items].

    A negative lift lowers the items of the concept, so that the others gain.
    """
    return [
        target.members ^ (strength.lift < 0)
        for target, strength in zip(plan.targets, applied.targets, strict=False)
        if strength.lift
    ]
