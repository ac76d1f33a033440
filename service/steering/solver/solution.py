"""Defines the scored candidates that the solver and the search return."""

from typing import NamedTuple

from service.arrays import AnyArray, Floats, Ints
from service.steering.plan import Applied


class ScoredCandidates(NamedTuple):
    """Candidates with their scores under the steering that is applied.

    Attributes:
        items: Item indices, ascending, int64 [m].
        plain: Unsteered scores, float32 [m].
        scores: Steered scores, float32 or float64 [m].
        applied: How far the steering goes.
        degraded: True if the index failed, so that all items were scored.
        boosted: What each boost adds to the scores, [m], with its edit's position in the plan.
    """

    items: Ints
    plain: Floats
    scores: AnyArray
    applied: Applied
    degraded: bool = False
    boosted: tuple[tuple[int, AnyArray], ...] = ()
