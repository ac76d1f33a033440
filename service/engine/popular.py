"""Lists the most popular items for a user of whom nothing is known."""

import numpy as np

from service.admission.ladder import Degradation
from service.arrays import Ints
from service.engine.audience import Audience
from service.engine.explain import Term, TermKind
from service.engine.query import Query
from service.engine.reply import Reply
from service.engine.report import report
from service.ranking.order import Ranking
from service.steering.steer import Steered


def popular_reply(
    query: Query,
    who: Audience,
    steered: Steered,
    unwanted: Ints,
    degradations: tuple[Degradation, ...],
) -> Reply:
    """Lists the most popular allowed items, for a user of whom nothing is known."""
    catalogue = query.bundle.catalogue
    wanted = np.ones(len(catalogue), bool)
    if (allowed := catalogue.allowed(query.item_filter)) is not None:
        wanted &= allowed
    wanted[unwanted] = False
    items = catalogue.by_popularity[wanted[catalogue.by_popularity]][: query.n]
    scores = catalogue.popularity[items].astype(np.float32)
    ranking = Ranking(items, scores)
    terms = (Term(TermKind.POPULARITY, scores),) if query.explain else ()
    compared = report(query, steered, ranking, scores, ranking) if query.include_report else None
    return Reply(
        query,
        who,
        ranking,
        scores,
        ranking if query.compares else None,
        terms,
        compared,
        degradations,
    )
