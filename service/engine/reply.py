"""Defines a reply: a list, and everything that the caller may ask about it."""

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
    """The audience of a query, and the degradations that finding it met."""

    audience: Audience
    degradations: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One list.

    Attributes:
        query: The request.
        audience: The user that the list is for.
        ranking: The list.
        unsteered_scores: Unsteered scores of the listed items, float32 [n].
        unsteered: The unsteered list from its first rank to this page's last, if it was requested.
        terms: Reasons, if they were requested; they sum to the scores.
        report: The comparison with the unsteered list, if it was requested.
        degradations: What the server did without.
        applied: How far the steering goes.
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
