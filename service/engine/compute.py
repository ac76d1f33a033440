"""Computes one reply: audience, steering, candidates, ranking, explanation."""

from collections.abc import Sequence

import numpy as np

from service.admission.ladder import Degradation
from service.arrays import are_in
from service.batching.joint_calls import Computation, alone
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.engine.audience import NO_ITEMS, Source, audience
from service.engine.candidates import _look_up
from service.engine.explain import Term, explain
from service.engine.popular import _popular
from service.engine.query import Query
from service.engine.reply import Reply
from service.engine.report import report
from service.ranking.measures import RELEVANCE_DEPTH
from service.ranking.order import Ranking, rank
from service.steering.edits import Operation, RawEdit
from service.steering.lift import lifts
from service.steering.plan import WHOLLY, Plan
from service.steering.solver.solve import solve
from service.steering.steer import steer
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER, StoredUser


def answer(
    query: Query, stored: StoredUser, timings: Timings, degradations: Sequence[Degradation] = ()
) -> Computation[Reply]:
    """Computes one reply; pure but for the clock."""
    timings.lap("queue")
    bundle = query.bundle
    who = yield from audience(query, stored)
    timings.lap("encode")
    unwanted = who.seen
    if query.exclude:
        unwanted = np.union1d(unwanted, bundle.catalogue.indices_of(query.exclude))
    returned = (
        NO_ITEMS if query.page is None else bundle.catalogue.indices_of_hashes(query.page.returned)
    )
    if query.plan.degraded:
        degradations = (*degradations, Degradation.UNSTEERED)
    known = query.page.applied if query.page else None
    applied = known or WHOLLY
    steered = steer(query, who, applied)
    timings.lap("steer")
    acts = steered.change is not None or query.plan.targets or query.plan.boosts
    if who.source is not Source.PERSONAL and not acts:
        unwanted = np.union1d(unwanted, returned)
        return _popular(
            query, who._replace(source=Source.POPULAR), steered, unwanted, tuple(degradations)
        )

    if query.plan.solves and known is None:
        found = solve(query, who.state, steered, unwanted, timings)
        applied = found.applied
        steered = steer(query, who, applied)
    else:
        found = yield from _look_up(query, who.state, steered, applied, unwanted, len(returned))
        timings.lap("search")
    if found.degraded:
        degradations = (*degradations, Degradation.EXACT_SEARCH)

    fresh = ~are_in(found.items, np.sort(returned)) if len(returned) else slice(None)
    ranking = rank(found.items[fresh], found.scores[fresh], query.n)
    rows = np.searchsorted(found.items, ranking.items)  # candidates are sorted
    unsteered_scores = found.plain[rows]
    depth = query.n + len(returned)
    unsteered = (
        rank(found.items, found.plain, max(depth, RELEVANCE_DEPTH)) if query.compares else None
    )
    terms: tuple[Term, ...] = ()
    if query.explain:
        boosted = [(steered.edits[position].edit, part[rows]) for position, part in found.boosted]
        lifted = lifts(query, applied, ranking.items)
        terms = explain(bundle, who.state, ranking, unsteered_scores, steered, boosted, lifted)
    compared = None
    if unsteered and query.include_report:
        compared = report(query, steered, ranking, unsteered_scores, unsteered, applied)
    shown = Ranking(unsteered.items[:depth], unsteered.scores[:depth]) if unsteered else None
    timings.lap("rank")
    return Reply(
        query, who, ranking, unsteered_scores, shown, terms, compared, tuple(degradations), applied
    )


def warm_up(bundle: Bundle) -> Reply:
    """Answers one request that passes through every part of a bundle; ready means that this worked."""
    concepts = bundle.labels.concepts[:1]
    targets = [bundle.labels.neuron_target(0), *(concept.target for concept in concepts)]
    edits = tuple(RawEdit(target, Operation.ADD, target.unit) for target in targets)
    query = Query(
        bundle,
        n=20,
        history=tuple(Event(item_id, EventKind.LIKE) for item_id in bundle.catalogue.item_ids[:10]),
        plan=Plan(
            edits, max_relevance_loss=0.1, concepts=tuple(concept.name for concept in concepts)
        ),
        explain=True,
        include_unsteered=True,
        include_report=True,
    )
    return alone(answer(query, UNKNOWN_USER, Timings()))
