"""Finds the candidates of a list whose steering strength is known."""

import numpy as np

from service.arrays import Ints
from service.batching.joint_calls import Computation
from service.bundle.encoder import Head
from service.engine.query import Query
from service.ranking.measures import RELEVANCE_DEPTH
from service.ranking.order import score
from service.retrieval.strategy import find_candidates
from service.steering.boost import PLACES, Places, added, better_off, boosts_of, settles
from service.steering.lift import lifted_items, lifts
from service.steering.plan import Applied
from service.steering.solver.solution import Found
from service.steering.state import UserState
from service.steering.steer import Steered


def _look_up(
    query: Query,
    state: UserState,
    steered: Steered,
    applied: Applied,
    unwanted: Ints,
    returned_count: int,
) -> Computation[Found]:
    """The candidates where it is known how far the steering goes: those of the steered and the plain query.

    Items that are boosted or lifted are searched for apart: without that they would not be found.
    """
    bundle = query.bundle
    queries = np.array([state.z] if steered.change is None else [state.z, state.z + steered.change])
    if bundle.encoder.has_head:
        queries = yield Head(bundle.encoder, queries, state.context)
    depth, boosts = query.n + returned_count, boosts_of(query, applied)
    needed = max(depth, RELEVANCE_DEPTH if query.include_report else 0, PLACES if boosts else 0)
    allowed = bundle.catalogue.allowed(query.item_filter)
    index, matrix = bundle.index, bundle.items
    sought = queries if query.compares or boosts else queries[-1:]
    found = yield from find_candidates(index, matrix, sought, needed, allowed, unwanted)
    items, degraded = found.items, found.degraded
    every = score(matrix, items, queries)
    apart = [(some, depth) for some in lifted_items(query, applied)]
    if boosts and not settles(every, [boost.of(items) for boost in boosts], depth, needed):
        apart += [(some, max(depth, PLACES)) for some in better_off(boosts)]
    for some, count in apart:
        limit = some if allowed is None else allowed & some
        more = yield from find_candidates(index, matrix, queries[-1:], count, limit, unwanted)
        items, degraded = np.union1d(items, more.items), degraded or more.degraded
    if apart:
        every = score(matrix, items, queries)
    plain, scores = every[0], every[-1]
    boosted = added(Places(plain), scores, [boost.of(items) for boost in boosts]) if boosts else ()
    for part in (*boosted, *lifts(query, applied, items)):
        scores = scores + part
    positions = (boost.position for boost in boosts)
    return Found(
        items, plain, scores, applied, degraded, tuple(zip(positions, boosted, strict=True))
    )
