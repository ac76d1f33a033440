"""Finds and scores the candidates of a list, at a known strength or one that is solved for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Bools, Floats, Ints
from service.batching.joint_calls import Computation, run_alone
from service.bundle.bundle import Bundle
from service.bundle.encoder import Head
from service.engine.query import Query
from service.ranking.measures import RELEVANCE_DEPTH
from service.ranking.order import score
from service.retrieval.strategy import Candidates, find_candidates
from service.steering.boost import PLACES, Boost, Places, added, better_off, boosts_of, settles
from service.steering.lift import lifted_items, lifts
from service.steering.plan import WHOLLY, Applied
from service.steering.solver.problem import Problem
from service.steering.solver.solution import ScoredCandidates
from service.steering.solver.solve import solve
from service.steering.state import UserState
from service.steering.steer import Steered
from service.telemetry.timings import Timings


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
) -> Computation[ScoredCandidates]:
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
    boosts = boosts_of(query.plan, applied, bundle.gain_of)
    needed = max(depth, RELEVANCE_DEPTH if query.include_report else 0, PLACES if boosts else 0)
    allowed = bundle.catalogue.allowed(query.item_filter)
    searched = queries if query.compares or boosts else queries[-1:]
    candidates = yield from find_candidates(
        bundle.index, bundle.items, searched, needed, allowed, unwanted
    )
    scores = score(bundle.items, candidates.items, queries)
    searches = [_Search(items, depth) for items in lifted_items(query.plan, applied)]
    if boosts and not settles(scores, _of(boosts, candidates.items), depth, needed):
        searches += [_Search(items, max(depth, PLACES)) for items in better_off(boosts)]
    if searches:
        candidates = yield from _search_more(
            bundle, queries[-1:], searches, candidates, allowed, unwanted
        )
        scores = score(bundle.items, candidates.items, queries)
    return _with_boosts_and_lifts(query, applied, candidates, scores, boosts)


def solve_candidates(
    query: Query, state: UserState, steered: Steered, unwanted: Ints, timings: Timings
) -> ScoredCandidates:
    """Solves for the strength of the steering, and finds the candidates of the resulting list.

    Args:
        query: The request, with target shares, a budget, or both.
        state: The user's state.
        steered: The steering at full strength.
        unwanted: Item indices that must not be listed, ascending, each once.
        timings: Receives the time of each stage.
    """
    bundle = query.bundle
    search = _AllowedSearch(query, unwanted, timings)
    problem = Problem(
        plan=query.plan,
        n=query.n,
        state=state,
        whole=steered,
        model=bundle.encoder,
        items=bundle.items,
        boosts=boosts_of(query.plan, WHOLLY, bundle.gain_of),
        compares=query.compares,
        search=search,
        lap=timings.lap,
    )
    return solve(problem)._replace(degraded=search.degraded)


class _AllowedSearch:
    """Searches, for the solver, among the items that a request allows.

    Attributes:
        degraded: Whether the index failed in any search.
    """

    def __init__(self, query: Query, unwanted: Ints, timings: Timings) -> None:
        self._bundle = query.bundle
        self._allowed = query.bundle.catalogue.allowed(query.item_filter)
        self._unwanted = unwanted
        self._timings = timings
        self.degraded = False

    def __call__(self, queries: Floats, n: int, among: Bools | None) -> Ints:
        self._timings.lap("solve")
        bundle = self._bundle
        allowed = _both(self._allowed, among)
        candidates = run_alone(
            find_candidates(bundle.index, bundle.items, queries, n, allowed, self._unwanted)
        )
        self._timings.lap("search")
        self.degraded = self.degraded or candidates.degraded
        return candidates.items


def _queries(query: Query, state: UserState, steered: Steered) -> Computation[Floats]:
    """Computes the unsteered query and, if steering changes it, the steered one: [1 or 2, p]."""
    unsteered = state.z
    queries = np.array(
        [unsteered] if steered.change is None else [unsteered, unsteered + steered.change]
    )
    if query.bundle.encoder.has_head:
        queries = yield Head(query.bundle.encoder, queries, state.context)
    return queries


def _search_more(
    bundle: Bundle,
    queries: Floats,
    searches: Sequence[_Search],
    candidates: Candidates,
    allowed: Bools | None,
    unwanted: Ints,
) -> Computation[Candidates]:
    """Adds the best items of each separate search to the candidates."""
    items = candidates.items
    degraded = candidates.degraded
    for search in searches:
        among = _both(allowed, search.items)
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
) -> ScoredCandidates:
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
    for part in (*parts, *lifts(query.plan, applied, candidates.items)):
        total = total + part
    positions = (boost.position for boost in boosts)
    return ScoredCandidates(
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


def _both(allowed: Bools | None, among: Bools | None) -> Bools | None:
    """Intersects two sets of items, bool [n_items]; None stands for all items."""
    if allowed is None:
        return among
    return allowed if among is None else allowed & among
