"""What is answered: a list, and everything that the caller may ask about it."""

from dataclasses import dataclass
from typing import NamedTuple

from service.admission.ladder import Degradation
from service.arrays import Floats
from service.engine.audience import Audience
from service.engine.explain import Term
from service.engine.query import Query
from service.engine.report import Report
from service.ranking.order import Ranking
from service.steering.plan import WHOLLY, Applied


class Inspection(NamedTuple):
    """Who a user is to the model, and what the server did without."""

    audience: Audience
    degradations: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One list.

    Attributes:
        ranking: The list.
        unsteered_scores: Of the listed items, float32 [n].
        unsteered: The list without steering from its first rank to this page's last, where it was
            asked for.
        terms: Reasons, where they were asked for; they sum to the scores.
        applied: How far the steering went.
    """

    query: Query
    audience: Audience
    ranking: Ranking
    unsteered_scores: Floats
    unsteered: Ranking | None
    terms: tuple[Term, ...]
    report: Report | None
    degradations: tuple[Degradation, ...]
    applied: Applied = WHOLLY
