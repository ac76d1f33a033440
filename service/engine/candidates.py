"""Finds and scores the candidates of a list whose steering strength is known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Bools, Floats, Ints
from service.batching.joint_calls import Computation
from service.bundle.encoder import Head
from service.engine.query import Query
from service.ranking.measures import RELEVANCE_DEPTH
from service.ranking.order import score
from service.retrieval.strategy import Candidates, find_candidates
from service.steering.boost import PLACES, Boost, Places, added, better_off, boosts_of, settles
from service.steering.lift import lifted_items, lifts
from service.steering.plan import Applied
from service.steering.solver.solution import Found
from service.steering.state import UserState
from service.steering.steer import Steered


class _Search(NamedTuple):
    """A separate search among some items.

    Attributes:
        items: Those to search among, bool [n_items].
        n: How many of the best are needed.
    """

    items: Bools
    n: int


def find_scored_candidates(
    query: Query,
    state: UserState,
    steered: Steered,
    *,
    applied: Applied,
    unwanted: Ints,
    depth: int,
) -> Computation[Found]:
    """Finds the candidates of the steered query, and of the unsteered one where it is compared.

    Items that a boost or a lift moves up are searched for separately, because the queries alone
    would not find them.

    Args:
        query: The request.
        state: The user's state.
        steered: The steering.
        applied: The strength at which it is applied.
        unwanted: Item indices that must not be listed, ascending, each once.
        depth: How many of the best items are needed.
    """
    bundle = query.bundle
    queries = yield from _queries(query, state, steered)
    boosts = boosts_of(query, applied)
    needed = max(depth, RELEVANCE_DEPTH if query.include_report else 0, PLACES if boosts else 0)
    allowed = bundle.catalogue.allowed(query.item_filter)
    searched = queries if query.compares or boosts else queries[-1:]
    candidates = yield from find_candidates(
        bundle.index, bundle.items, searched, needed, allowed, unwanted
    )
    scores = score(bundle.items, candidates.items, queries)
    searches = [_Search(items, depth) for items in lifted_items(query, applied)]
    if boosts and not settles(scores, _of(boosts, candidates.items), depth, needed):
        searches += [_Search(items, max(depth, PLACES)) for items in better_off(boosts)]
    if searches:
        candidates = yield from _search_more(query, queries[-1:], searches, candidates, unwanted)
        scores = score(bundle.items, candidates.items, queries)
    return _with_boosts_and_lifts(query, applied, candidates, scores, boosts)


def _queries(query: Query, state: UserState, steered: Steered) -> Computation[Floats]:
    """Computes the unsteered query and, if the steering changes it, the steered one: [1 or 2, p]."""
    unsteered = state.z
    queries = np.array(
        [unsteered] if steered.change is None else [unsteered, unsteered + steered.change]
    )
    if query.bundle.encoder.has_head:
        queries = yield Head(query.bundle.encoder, queries, state.context)
    return queries


def _search_more(
    query: Query,
    queries: Floats,
    searches: Sequence[_Search],
    candidates: Candidates,
    unwanted: Ints,
) -> Computation[Candidates]:
    """Adds the best items of each separate search to the candidates."""
    bundle = query.bundle
    allowed = bundle.catalogue.allowed(query.item_filter)
    items = candidates.items
    degraded = candidates.degraded
    for search in searches:
        among = search.items if allowed is None else allowed & search.items
        more = yield from find_candidates(
            bundle.index, bundle.items, queries, search.n, among, unwanted
        )
        items = np.union1d(items, more.items)
        degraded = degraded or more.degraded
    return Candidates(items, degraded)


def _with_boosts_and_lifts(
    query: Query,
    applied: Applied,
    candidates: Candidates,
    scores: AnyArray,
    boosts: Sequence[Boost],
) -> Found:
    """Adds what boosts and lifts give to the candidates' steered scores.

    Args:
        query: The request.
        applied: The strength of the steering.
        candidates: m of them.
        scores: Unsteered scores in the first row, steered ones in the last, [1 or 2, m].
        boosts: Those of the plan, over the whole catalogue.
    """
    plain = scores[0]
    total = scores[-1]
    parts = added(Places(plain), total, _of(boosts, candidates.items)) if boosts else []
    for part in (*parts, *lifts(query, applied, candidates.items)):
        total = total + part
    positions = (boost.position for boost in boosts)
    return Found(
        items=candidates.items,
        plain=plain,
        scores=total,
        applied=applied,
        degraded=candidates.degraded,
        boosted=tuple(zip(positions, parts, strict=True)),
    )


def _of(boosts: Sequence[Boost], items: Ints) -> list[Boost]:
    """Restricts boosts to some items."""
    return [boost.of(items) for boost in boosts]
