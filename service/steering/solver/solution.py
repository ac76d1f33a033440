"""What the solver and the search return."""

from typing import NamedTuple

from service.arrays import AnyArray, Floats, Ints
from service.steering.plan import Applied


class Found(NamedTuple):
    """Candidates, and what the search gave.

    Attributes:
        items: Sorted indices, int64 [m].
        plain: Unsteered scores, float32 [m].
        scores: Steered scores, float32 or float64 [m].
        applied: How far the steering went.
        degraded: True if the index failed, so that all items were scored.
        boosted: What each boost adds to the scores, [m], with its edit's position in the plan.
    """

    items: Ints
    plain: Floats
    scores: AnyArray
    applied: Applied
    degraded: bool
    boosted: tuple[tuple[int, AnyArray], ...] = ()
